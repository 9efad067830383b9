"""Tests that import Keras are collected only where it is installed; `make test` runs them in the Keras environment.

The tests of training and retraining share their initial weights.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ARTEFACT

# Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
ignores_array_copies = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def _find_modules_with_keras() -> list[str]:
    folder = Path(__file__).parent
    modules = folder.rglob("test_*.py")
    return [str(module.relative_to(folder)) for module in modules if "pytest.mark.keras" in module.read_text()]


collect_ignore = [] if find_spec("keras") else _find_modules_with_keras()


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
