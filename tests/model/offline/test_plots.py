from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backends.base import ModelInfo
from model.confidence.model import ConfidenceModel
from model.offline.changes import ALL_CHANGES
from model.offline.dataset import LabelledFiles
from model.offline.evaluate import Outputs, evaluate
from model.offline.plots import draw_evaluation

pytestmark = pytest.mark.keras


def find_colours(picture: Image.Image) -> set[str]:
    """Return the names of the colours that occur in the picture in strong tones."""
    red, green, blue = np.moveaxis(np.asarray(picture, int), -1, 0)
    return {
        name
        for name, strength in (("orange", red - blue), ("blue", blue - red), ("green", green - np.maximum(red, blue)))
        if strength.max() > 90
    }


@pytest.mark.parametrize(
    ("temperature", "changes", "colours"),
    [(1.0, [], {"orange"}), (0.5, [], {"orange", "blue"}), (0.5, ALL_CHANGES, {"orange", "blue", "green"})],
    ids=["raw", "calibrated", "robustness"],
)
def test_plot_shows_what_was_evaluated(
    tmp_path: Path, temperature: float, changes: list[str], colours: set[str]
) -> None:
    """The raw curve is orange, the calibrated one blue; with changes, a second column has a green bar."""
    positive = np.random.default_rng(0).uniform(0.5, 1, 60)
    outputs = Outputs(np.stack([positive, 1 - positive], axis=1).astype(np.float32), np.zeros((60, 1), np.float32))
    files = LabelledFiles((Path("image"),) * 60, (0,) * 45 + (1,) * 15, ("a", "b"))
    info = ModelInfo("two", "1.0", "0" * 64, "stub", ("a", "b"), confidence=ConfidenceModel(temperature=temperature))
    evaluations = {name: evaluate(outputs, files, info) for name in ("clean", *changes)}
    draw_evaluation(tmp_path / "plot.png", info.full_name, outputs, np.asarray(files.labels), evaluations)
    picture = Image.open(tmp_path / "plot.png").convert("RGB")
    assert picture.size == (1430 if changes else 715, 880)
    assert find_colours(picture) == colours
