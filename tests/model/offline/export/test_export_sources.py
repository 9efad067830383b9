from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.errors import ExportRefused
from model.offline.export import ExportOptions
from model.offline.export.confidence import choose_sources
from model.offline.export.record import TrainingRecord
from model.offline.fitting.sources import FittingSources


def make_options(**folders: Any) -> ExportOptions:
    return ExportOptions(model="run/model.keras", out="out", name="tiny", version="1", **folders)


def make_record(**options: Any) -> TrainingRecord:
    return TrainingRecord(("field", "lake"), "3.15.1", options=options)


def test_validation_split_is_that_of_training() -> None:
    """The fraction and the seed of the split come from the recorded options of the training run."""
    options = make_options(data="data", photographs="photos", other_scenes="scenes")
    sources = choose_sources(options, make_record(seed=7, validation_fraction=0.25, batch_size=8))
    assert sources == FittingSources(Path("data"), 0.25, 7, Path("photos"), Path("scenes"))


def test_nothing_is_fitted_without_data() -> None:
    """Without `--data`, the export fits nothing and needs no record of the run."""
    assert choose_sources(make_options(), make_record()) is None


@pytest.mark.parametrize("name", ["photographs", "other_scenes"])
def test_gate_needs_the_training_data(name: str) -> None:
    """Photographs or scenes without `--data` are an error."""
    with pytest.raises(ExportRefused, match="--data"):
        choose_sources(make_options(**{name: "folder"}), make_record(seed=1, validation_fraction=0.1))


@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"seed": "x", "validation_fraction": 0.1}])
def test_unrecorded_split_is_an_error(options: dict[str, Any]) -> None:
    """An incompletely recorded split is an error, because training images could count as held out."""
    with pytest.raises(ExportRefused, match="validation_fraction"):
        choose_sources(make_options(data="data"), make_record(**options))


def test_held_out_images_are_split_in_halves() -> None:
    """Half of the images that the model has not seen are for fitting; a recorded split takes precedence."""
    options = make_options(data="data", held_out=True)
    sources = choose_sources(options, make_record())
    assert sources is not None
    assert sources.validation_fraction == 0.5
    assert choose_sources(options, make_record(seed=7, validation_fraction=0.25)) == FittingSources(
        Path("data"), 0.25, 7
    )
