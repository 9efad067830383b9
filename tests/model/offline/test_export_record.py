from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from model.classes import UC_MERCED_CLASSES
from model.errors import ExportRefused
from model.offline.export.record import read_record, short_card


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A .keras file as far as its metadata goes."""
    path = tmp_path / "model.keras"
    with ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.7.0"}))
    return path


def test_twenty_one_outputs_are_uc_merceds_without_a_record(model: Path) -> None:
    """The research team's files carry no class names; 21 outputs are taken for the 21 of UC Merced."""
    record = read_record(model, 21)
    assert record.classes == UC_MERCED_CLASSES
    assert record.saved_by == "3.7.0"
    assert record.results == {}


def test_other_outputs_need_names(model: Path) -> None:
    """Class names are never invented: the user is told where to write them."""
    with pytest.raises(ExportRefused, match='"classes"'):
        read_record(model, 3)


def test_the_record_keeps_the_figures_and_leaves_the_details(model: Path) -> None:
    """Figures of both splits reach the manifest without confusion matrix and figures by class."""
    results = {"n": 9, "accuracy": 0.9, "macro_f1": 0.8, "loss": 0.3, "ece": 0.1}
    metrics = {
        "classes": ["field", "road"],
        "data": {"name": "Fields"},
        "tools": {"keras": "3.15.1"},
        "validation": {**results, "confusion": [[1]], "per_class": {}},
        "test": {**results, "n": 4, "confusion": [[1]]},
    }
    model.with_name("metrics.json").write_text(json.dumps(metrics))
    record = read_record(model, 2)
    assert record.classes == ("field", "road")
    assert record.data == {"name": "Fields"}
    assert record.tools == {"keras": "3.15.1"}
    assert record.results == {"validation": results, "test": {**results, "n": 4}}


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "{}", '{"classes": ["a"]}', '{"classes": ["a", "a"]}', '{"classes": ["a", 2]}'],
)
def test_an_unusable_record_is_refused(model: Path, text: str) -> None:
    """A metrics.json that does not name every output once is an error, never a guess."""
    model.with_name("metrics.json").write_text(text)
    with pytest.raises(ExportRefused, match=r"metrics\.json"):
        read_record(model, 2)


def test_a_short_card_says_what_is_not_known(model: Path) -> None:
    """A model that came without a card gets one that admits it, with its classes and origin."""
    card = short_card("lake-v1", read_record(model, 21))
    assert "Keras 3.7.0" in card
    assert "not known" in card
    assert "tenniscourt" in card
