"""The network: EfficientNetB0 (Tan and Le, 2019) with the research team's head."""

from __future__ import annotations

from pathlib import Path

import keras

from model.errors import DatasetError
from model.images import INPUT_SIZE


def build_network(classes: int, init: str) -> keras.Model:
    """Map float [n, 256, 256, 3] in 0..255 to softmax [n, classes]; every layer is trainable.

    `init` is "imagenet" (Keras downloads it) or a `.weights.h5` file of the backbone.
    """
    shape = (*INPUT_SIZE, 3)
    weights = "imagenet" if init == "imagenet" else None
    backbone = keras.applications.EfficientNetB0(include_top=False, weights=weights, input_shape=shape)
    if weights is None:
        _load(backbone, Path(init))
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    hidden = keras.layers.Dense(256, activation="relu", name="hidden")(hidden)
    hidden = keras.layers.Dropout(0.3, name="dropout")(hidden)
    probabilities = keras.layers.Dense(classes, activation="softmax", name="probabilities")(hidden)
    return keras.Model(backbone.input, probabilities, name="efficientnetb0_land_use")


def _load(backbone: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise DatasetError(f"No weights at {path}. Give --init imagenet or a .weights.h5 file of the backbone.")
    backbone.load_weights(path)
