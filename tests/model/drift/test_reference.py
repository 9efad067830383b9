"""The reference that live traffic is compared with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.drift.files import describe_reference_file, find_reference
from model.drift.metrics import MEASURES, Metric, Observations, measure
from model.drift.reference import MeasureReference, Reference, build_reference
from model.errors import ArtefactError
from model.registry.artefact import read_manifest
from tests.support.paths import ARTEFACT, ROOT

REFERENCES = ROOT / "artifacts" / "references"


def observe(n: int, gate_score: float = 1.0) -> Observations:
    """Predictions that alternate between two classes, with the measures 0, 1, …, and a constant gate score."""
    measures = np.repeat(np.arange(n, dtype=float)[:, np.newaxis], len(MEASURES), axis=1)
    measures[:, MEASURES.index(Metric.GATE_SCORE)] = gate_score
    return Observations(np.arange(n) % 2, measures, np.zeros(n))


@pytest.fixture
def reference() -> Reference:
    return build_reference(observe(200), ["forest", "river"])


def test_ranks_count_equal_values_half(reference: Reference) -> None:
    """A value's rank is the share of the reference below it, with equal values counted half; NaN stays NaN."""
    brightness, gate = reference.measures[Metric.BRIGHTNESS], reference.measures[Metric.GATE_SCORE]
    assert brightness.rank(np.array([-1.0, 99.5, 500.0])) == pytest.approx([0, 0.5, 1], abs=0.01)
    assert gate.rank(np.array([0.9, 1.0, 1.1])).tolist() == [0, 0.5, 1]
    assert math.isnan(brightness.rank(np.array([math.nan]))[0])


def test_spread_is_that_of_the_reference(reference: Reference) -> None:
    """The spread is one half if all values differ, and 0 if all are equal."""
    assert reference.measures[Metric.BRIGHTNESS].spread == pytest.approx(0.5, abs=0.01)
    assert reference.measures[Metric.GATE_SCORE].spread == 0


def test_an_unknown_measure_is_left_out() -> None:
    """A model without a gate has a reference without gate scores."""
    reference = build_reference(observe(60, math.nan), ["forest", "river"])
    assert set(reference.measures) == set(MEASURES) - {Metric.GATE_SCORE}


@pytest.mark.parametrize(("width", "height"), [(256, 256), (256, 300), (640, 480), (1920, 1080), (5472, 3648)])
def test_predictions_like_the_reference_have_the_middle_rank(width: int, height: int) -> None:
    """If all images of the reference are alike, a prediction of such an image has rank one half in each measure."""
    values = {"confidence": 2 / 3, "gate_score": math.pi, "brightness": 118.8362441, "sharpness": 5.0041234}
    row = measure(**values, width=width, height=height)
    built = build_reference(Observations(np.zeros(60, np.int64), np.tile(row, (60, 1)), np.zeros(60)), ["forest"])
    recorded = measure(
        **{**values, "brightness": round(118.8362441, 2), "sharpness": round(5.0041234, 2)}, width=width, height=height
    )
    exact = [values["confidence"], math.pi, 118.8362441, 5.0041234, math.sqrt(width * height)]
    written = {
        metric.value: {"mean": value, "quantiles": [round(value, 7)] * 101}
        for metric, value in zip(MEASURES, exact, strict=True)
    }
    earlier = Reference.from_document(built.to_document() | {"measures": written})
    for reference in (built, Reference.from_document(built.to_document()), earlier):
        for metric, value in zip(MEASURES, recorded, strict=True):
            assert reference.measures[metric].rank(np.array([value])).tolist() == [0.5]


def test_few_images_are_no_reference() -> None:
    """Building a reference from fewer than 50 images raises ValueError."""
    with pytest.raises(ValueError, match="at least 50 images, not 49"):
        build_reference(observe(49), ["forest", "river"])


def test_a_document_reads_back(reference: Reference) -> None:
    """A reference does not change when it is written as JSON and read again."""
    assert Reference.from_document(json.loads(json.dumps(reference.to_document()))) == reference


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"classes": {}},
        {"classes": {"forest": 1.5}},
        {"measures": {"brightness": {"mean": 1.0, "quantiles": [2.0, 1.0]}}},
        {"measures": {"brightness": {"mean": "1", "quantiles": [1.0]}}},
        {"measures": {"class_mix": {"mean": 1.0, "quantiles": [1.0]}}},
        {"measures": {"hue": {"mean": 1.0, "quantiles": [1.0]}}},
    ],
)
def test_a_changed_document_is_rejected(reference: Reference, change: dict[str, Any]) -> None:
    """Numbers that cannot be a distribution and unknown measures raise ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        Reference.from_document(reference.to_document() | change)


def test_the_shipped_model_has_a_reference() -> None:
    """The reference for the digest of the shipped graph has its classes, all measures and all validation images."""
    manifest = read_manifest(ARTEFACT)
    found = find_reference(sorted(REFERENCES.glob("*.json")), manifest.files["model.onnx"].sha256)
    assert found is not None
    assert found.classes == manifest.classes
    assert set(found.measures) == set(MEASURES)
    assert found.images == manifest.results["validation"]["n"]


def test_files_of_other_models_are_passed_over(reference: Reference, tmp_path: Path) -> None:
    """A reference file is used only for the model whose digest it names; a damaged file raises ArtefactError."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(describe_reference_file(reference, "land-v1", "ab12")))
    assert find_reference([path], "ab12") == reference
    assert find_reference([path], "cd34") is None
    path.write_text("{}")
    with pytest.raises(ArtefactError, match=r"a\.json is not a reference"):
        find_reference([path], "ab12")


def test_a_damaged_file_does_not_hide_those_after_it(reference: Reference, tmp_path: Path) -> None:
    """A reference is found even if another file is damaged; a model without a reference is reported with that file."""
    damaged, intact = tmp_path / "a.json", tmp_path / "b.json"
    damaged.write_text("{")
    intact.write_text(json.dumps(describe_reference_file(reference, "land-v1", "ab12")))
    assert find_reference([damaged, intact], "ab12") == reference
    with pytest.raises(ArtefactError, match=r"a\.json is not a reference"):
        find_reference([damaged, intact], "cd34")


def test_equal_values_have_one_quantile() -> None:
    """If a measure has a single value, the rank is one half at that value, 0 below it and 1 above it."""
    measure = MeasureReference(256.0, (256.0,))
    assert measure.rank(np.array([255.0, 256.0, 257.0])).tolist() == [0, 0.5, 1]
