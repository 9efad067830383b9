from __future__ import annotations

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

from model.errors import DatasetError
from model.imaging.input_spec import DEFAULT_INPUT
from model.offline.train.network import build_network, copy_weights, make_trainable_copy
from model.offline.train.provenance import describe_init
from model.registry.artefact import write_manifest
from tests.model.offline.conftest import ignores_array_copies
from tests.support.paths import ARTEFACT

pytestmark = [pytest.mark.keras, ignores_array_copies]
TRAINED = ARTEFACT / "model.keras"


def test_network_starts_from_an_earlier_run() -> None:
    """A network built from an earlier .keras file has the weights of that file."""
    earlier = keras.models.load_model(TRAINED, compile=False)
    network = build_network(21, str(TRAINED), DEFAULT_INPUT)
    pairs = zip(network.get_weights(), earlier.get_weights(), strict=True)
    assert all(np.array_equal(actual, expected) for actual, expected in pairs)


def test_copies_predict_what_the_original_predicts() -> None:
    """A network built from an earlier file, its trainable copy, and a network with that copy's weights agree."""
    earlier = keras.models.load_model(TRAINED, compile=False)
    network = build_network(21, str(TRAINED), DEFAULT_INPUT)
    trainable = make_trainable_copy(network)
    served = build_network(21, str(TRAINED), DEFAULT_INPUT)
    copy_weights(trainable, served)
    images = np.random.default_rng(2).uniform(0, 255, (2, *DEFAULT_INPUT.shape)).astype(np.float32)
    expected = np.asarray(earlier(images))
    for copy in (network, trainable, served):
        assert np.asarray(copy(images)) == pytest.approx(expected, abs=1e-5)


def test_earlier_run_with_another_number_of_classes_is_rejected() -> None:
    """An earlier .keras file with another number of classes raises an error."""
    with pytest.raises(DatasetError, match="21 classes"):
        build_network(3, str(TRAINED), DEFAULT_INPUT)


def test_error_names_the_missing_weights(tmp_path: Path) -> None:
    """The error for a missing weights file contains its path."""
    with pytest.raises(DatasetError, match=r"missing\.weights\.h5"):
        build_network(3, str(tmp_path / "missing.weights.h5"), DEFAULT_INPUT)


def test_weights_of_an_artefact_are_described_by_its_name(tmp_path: Path) -> None:
    """A run that starts from the model of an artefact names the artefact and the digest of the file."""
    write_manifest(
        tmp_path, name="toy", version="2", classes=("a",), outputs={}, filenames=(), data={}, results={}, tools={}
    )
    (tmp_path / "model.keras").write_bytes(b"weights")
    assert describe_init(str(tmp_path / "model.keras")) == {
        "name": "model.keras",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
        "source": "The model of the artefact toy-v2: see its model card.",
    }
