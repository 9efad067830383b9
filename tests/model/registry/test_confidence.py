"""The manifest's members for calibration, abstention and prediction sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.confidence.abstention import AbstentionRules, AerialGate
from model.confidence.model import DEFAULT_CONFIDENCE, ConfidenceModel
from model.confidence.prediction_sets import ConformalScores
from model.errors import ArtefactError
from model.registry.artefact import read_manifest, write_manifest
from model.registry.confidence import describe_confidence, parse_confidence
from tests.support.paths import ROOT

OLD_MANIFEST = ROOT / "tests" / "model" / "registry" / "fixtures" / "manifest_v1.0.json"
GATE = AerialGate(np.array([0.25, -1.5, 3e-5], np.float32), -0.125)
SCORES = ConformalScores(np.array([0.001, 0.02, 0.75], np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artefact folder with the manifest of a model without these members."""
    shutil.copyfile(OLD_MANIFEST, tmp_path / "manifest.json")
    return tmp_path


def write(folder: Path, confidence: ConfidenceModel) -> dict[str, Any]:
    """Write a manifest without files, and return its document."""
    members: dict[str, Any] = {name: {} for name in ("outputs", "data", "results", "tools")}
    write_manifest(folder, name="t", version="1", classes=("a", "b"), filenames=(), confidence=confidence, **members)
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return document


def test_everything_is_read_as_written(tmp_path: Path) -> None:
    """A manifest keeps the temperature, the gate, the threshold and the scores."""
    write(tmp_path, ConfidenceModel(0.7345, AbstentionRules(GATE, 0.46), SCORES))
    confidence = read_manifest(tmp_path).confidence
    gate = confidence.abstention.gate
    assert (confidence.temperature, confidence.abstention.min_confidence) == (0.7345, 0.46)
    assert gate is not None
    assert (gate.weights.tolist(), gate.bias) == (pytest.approx(GATE.weights.tolist(), abs=1e-7), GATE.bias)
    assert confidence.sets is not None
    assert confidence.sets.scores.tolist() == pytest.approx(SCORES.scores.tolist(), abs=1e-7)


@pytest.mark.parametrize(
    ("confidence", "members"),
    [
        (DEFAULT_CONFIDENCE, set()),
        (ConfidenceModel(temperature=2.0), {"calibration"}),
        (ConfidenceModel(abstention=AbstentionRules(min_confidence=0.5)), {"abstention"}),
        (ConfidenceModel(abstention=AbstentionRules(GATE)), {"abstention"}),
        (ConfidenceModel(sets=SCORES), {"prediction_sets"}),
    ],
    ids=["nothing", "temperature", "threshold", "gate", "sets"],
)
def test_each_part_is_optional(tmp_path: Path, confidence: ConfidenceModel, members: set[str]) -> None:
    """A manifest contains only the members that were fitted; the others have their default values when read."""
    document = write(tmp_path, confidence)
    assert {"calibration", "abstention", "prediction_sets"} & set(document) == members
    assert describe_confidence(read_manifest(tmp_path).confidence) == describe_confidence(confidence)


def test_manifests_of_older_exports_load(folder: Path) -> None:
    """The manifest of v1.0, which has none of the members, gives unchanged probabilities, no abstention and no sets."""
    manifest = read_manifest(folder)
    assert (manifest.full_name, len(manifest.classes)) == ("efficientnetb0-v1.0", 21)
    assert (manifest.confidence.temperature, manifest.confidence.sets) == (1.0, None)
    assert (manifest.confidence.abstention.gate, manifest.confidence.abstention.min_confidence) == (None, 0.0)


def test_scores_are_read_in_ascending_order() -> None:
    """Prediction sets need ascending scores, so a manifest may list them in any order."""
    sets = parse_confidence({"prediction_sets": {"scores": [0.5, 0.25, 0.75]}}).sets
    assert sets is not None
    assert sets.scores.tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "members",
    [
        {"calibration": {"temperature": 0}},
        {"calibration": {"temperature": -1.0}},
        {"calibration": {"temperature": "1"}},
        {"calibration": {"temperature": True}},
        {"calibration": {"temperature": float("nan")}},
        {"calibration": []},
        {"abstention": {"low_confidence": {}}},
        {"abstention": {"low_confidence": {"min_confidence": None}}},
        {"abstention": {"not_an_aerial_image": {"weights": [1.0]}}},
        {"abstention": {"not_an_aerial_image": {"weights": [], "bias": 0.0}}},
        {"abstention": {"not_an_aerial_image": {"weights": [1.0, "2"], "bias": 0.0}}},
        {"abstention": {"not_an_aerial_image": {"weights": [1.0], "bias": float("inf")}}},
        {"prediction_sets": {}},
        {"prediction_sets": {"scores": []}},
        {"prediction_sets": {"scores": [0.5, None]}},
        {"prediction_sets": {"scores": 0.5}},
    ],
)
def test_each_member_is_validated(folder: Path, members: dict[str, Any]) -> None:
    """A member of a wrong type, without a number or with an invalid number raises ArtefactError."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))
    with pytest.raises(ArtefactError, match="is not a manifest of schema 1"):
        read_manifest(folder)
