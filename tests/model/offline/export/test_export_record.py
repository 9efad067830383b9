from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from model.classes import UC_MERCED_CLASSES
from model.errors import ExportRefused
from model.imaging.input_spec import DEFAULT_INPUT, InputSpec
from model.offline.export.record import make_short_card, read_record


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A .keras file that contains only its metadata."""
    path = tmp_path / "model.keras"
    with ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.7.0"}))
    return path


def test_model_with_21_outputs_gets_the_uc_merced_classes_by_default(model: Path) -> None:
    """Without metrics.json, a model with 21 outputs gets the 21 class names of UC Merced."""
    record = read_record(model, 21)
    assert record.classes == UC_MERCED_CLASSES
    assert record.saved_by == "3.7.0"
    assert record.input_spec == DEFAULT_INPUT
    assert record.results == {}


def test_other_number_of_outputs_needs_class_names(model: Path) -> None:
    """Without metrics.json, another number of outputs raises an error that says where to write the class names."""
    with pytest.raises(ExportRefused, match='"classes"'):
        read_record(model, 3)


def test_record_contains_the_results_but_not_the_details(model: Path) -> None:
    """The record has the results of both splits, without the confusion matrix and the results per class."""
    results = {"n": 9, "accuracy": 0.9, "macro_f1": 0.8, "loss": 0.3, "ece": 0.1}
    metrics = {
        "classes": ["field", "road"],
        "input": {"width": 64, "height": 64, "resize_filter": "lanczos", "ground_resolution_m": 0.5},
        "data": {"name": "Fields"},
        "tools": {"keras": "3.15.1"},
        "validation": {**results, "confusion": [[1]], "per_class": {}},
        "test": {**results, "n": 4, "confusion": [[1]]},
    }
    model.with_name("metrics.json").write_text(json.dumps(metrics))
    record = read_record(model, 2)
    assert record.classes == ("field", "road")
    assert record.input_spec == InputSpec(64, 64, "lanczos")
    assert record.input_spec.ground_resolution_m == 0.5
    assert record.data == {"name": "Fields"}
    assert record.tools == {"keras": "3.15.1"}
    assert record.results == {"validation": results, "test": {**results, "n": 4}}


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "{}", '{"classes": ["a"]}', '{"classes": ["a", "a"]}', '{"classes": ["a", 2]}'],
)
def test_unusable_metrics_file_is_rejected(model: Path, text: str) -> None:
    """A metrics.json that is invalid or does not name every output exactly once raises an error."""
    model.with_name("metrics.json").write_text(text)
    with pytest.raises(ExportRefused, match=r"metrics\.json"):
        read_record(model, 2)


@pytest.mark.parametrize("members", ["256x256", {"side": 64}, {"width": 0}, {"resize_filter": "sharp"}])
def test_unusable_input_is_rejected(model: Path, members: object) -> None:
    """A metrics.json whose "input" is not a model input raises an error."""
    metrics = {"classes": ["field", "road"], "input": members}
    model.with_name("metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ExportRefused, match=r'"input" in .*metrics\.json'):
        read_record(model, 2)


@pytest.mark.parametrize("members", [None, {}, {"metadata.json": "[]"}, {"metadata.json": "{"}])
def test_a_file_of_another_kind_is_rejected(model: Path, members: dict[str, str] | None) -> None:
    """A file that Keras has not saved, which may not even be an archive, raises an error that names it."""
    if members is None:
        model.write_text("not an archive")
    else:
        with ZipFile(model, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    with pytest.raises(ExportRefused, match=r"not a file that Keras saved"):
        read_record(model, 21)


def test_short_card_says_what_is_not_known(model: Path) -> None:
    """The card of a model that came without one states what is unknown, the Keras version and the classes."""
    card = make_short_card("lake-v1", read_record(model, 21))
    assert "Keras 3.7.0" in card
    assert "not known" in card
    assert "tenniscourt" in card
