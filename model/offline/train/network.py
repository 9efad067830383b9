"""The network: EfficientNetB0 (Tan and Le, 2019) with the research team's head."""

from __future__ import annotations

from pathlib import Path

import keras

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec


def build_network(classes: int, init: str, spec: InputSpec) -> keras.Model:
    """Build a model from float [n, height, width, 3] in 0..255 to softmax [n, classes]; every layer is trainable.

    `init` is "imagenet" (Keras downloads it), a `.weights.h5` file of the backbone, or the `.keras` file of an
    earlier run. Raises DatasetError.
    """
    if init != "imagenet" and not Path(init).is_file():
        raise DatasetError(f"{init} does not exist. Use --init imagenet, a .weights.h5 file or an earlier .keras file.")
    weights = "imagenet" if init == "imagenet" else None
    backbone = keras.applications.EfficientNetB0(include_top=False, weights=weights, input_shape=spec.shape)
    if weights is None and not init.endswith(".keras"):
        backbone.load_weights(init)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    hidden = keras.layers.Dense(256, activation="relu", name="hidden")(hidden)
    hidden = keras.layers.Dropout(0.3, name="dropout")(hidden)
    probabilities = keras.layers.Dense(classes, activation="softmax", name="probabilities")(hidden)
    model = keras.Model(backbone.input, probabilities, name="efficientnetb0_land_use")
    if init.endswith(".keras"):
        _copy_weights(model, init)
    return model


def _copy_weights(model: keras.Model, path: str) -> None:
    earlier = keras.models.load_model(path, compile=False, safe_mode=True)
    if earlier.output_shape != model.output_shape:
        raise DatasetError(f"{path} has {earlier.output_shape[-1]} classes, but the data has {model.output_shape[-1]}.")
    model.set_weights(earlier.get_weights())
