"""The record of a start model."""

from __future__ import annotations

import pytest

from model.errors import DatasetError
from model.imaging.input_spec import DEFAULT_INPUT
from model.offline.retrain.start import StartRecord

RECORD = StartRecord(DEFAULT_INPUT, {"images": {"training": 1511, "extra": 56, "validation": 168, "test": 210}})


def test_validation_images_are_cut_from_known_images_alone() -> None:
    """Validation images are split off only if the data has as many images as the start model's, or that is unknown."""
    RECORD.check_split(1511 + 168)
    StartRecord(DEFAULT_INPUT, {}).check_split(5)
    with pytest.raises(DatasetError, match=r"has 1680 training images, but the start model was trained with 1679"):
        RECORD.check_split(1680)
