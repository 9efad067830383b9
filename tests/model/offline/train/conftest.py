"""One small training run, which the tests of training and of the whole pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.offline.train.toy_run import Resumed, train_twice, write_data
from tests.support.paths import ARTEFACT


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the shipped model's backbone as a .weights.h5 file."""
    import keras  # absent where no test uses this fixture

    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    layers = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(256, 256, 3))
    shipped = keras.models.load_model(ARTEFACT / "model.keras", compile=False)
    layers.set_weights(shipped.get_weights()[: len(layers.weights)])
    layers.save_weights(path)
    return path


@pytest.fixture(scope="session")
def resumed(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    data = write_data(tmp_path_factory.mktemp("data"))
    return train_twice(data, backbone, tmp_path_factory.mktemp("runs") / "toy")
