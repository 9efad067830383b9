"""The observations of real images, and the detector of the shipped model."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from model.drift.detector import DriftDetector
from model.drift.files import find_reference
from model.drift.metrics import Observations
from model.registry.artefact import read_manifest
from tests.model.drift.features import read_features
from tests.support.paths import ARTEFACT, ROOT


@pytest.fixture(scope="session")
def features() -> Mapping[str, Observations]:
    """The observations of each group of images."""
    return read_features()


@pytest.fixture(scope="session")
def detector() -> DriftDetector:
    """The detector of the shipped model."""
    digest = read_manifest(ARTEFACT).files["model.onnx"].sha256
    reference = find_reference((ROOT / "artifacts" / "references").glob("*.json"), digest)
    assert reference is not None
    return DriftDetector(reference)
