"""The network that training starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.errors import DatasetError

pytest.importorskip("keras", reason="needs the Keras environment")

from model.offline.train.network import build_network

pytestmark = [
    pytest.mark.keras,
    # Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]
ARTEFACT = Path(__file__).parents[3] / "artifacts" / "efficientnetb0-v1.0" / "model.keras"


def test_goes_on_from_an_earlier_run() -> None:
    """A network made from an earlier .keras file has its weights."""
    import keras

    earlier = keras.models.load_model(ARTEFACT, compile=False)
    made = build_network(21, str(ARTEFACT))
    pairs = zip(made.get_weights(), earlier.get_weights(), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def test_refuses_an_earlier_run_of_other_classes() -> None:
    """An earlier file with another number of classes is refused."""
    with pytest.raises(DatasetError, match="21 classes"):
        build_network(3, str(ARTEFACT))


def test_missing_weights(tmp_path: Path) -> None:
    """Weights that are not there are named, with what may be given."""
    with pytest.raises(DatasetError, match=r"missing\.weights\.h5"):
        build_network(3, str(tmp_path / "missing.weights.h5"))
