from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionRules, AerialGate
from model.confidence.model import ConfidenceModel
from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.changes import ALL_CHANGES
from model.offline.gate_images import list_photographs
from model.offline.gate_report import NearMiss, list_gate_images, measure_gate
from model.offline.negatives.catalogue import KINDS
from model.offline.negatives.roles import Role, assign_role

GREEN, RED = (40, 160, 40), (180, 60, 60)


def make_backend(gate: AerialGate | None) -> StubBackend:
    """Make a stub whose pooled features are the mean red, green and blue."""
    rules = AbstentionRules(gate)
    return StubBackend(
        classes=("field", "lake"), input_spec=InputSpec(32, 32), confidence=ConfidenceModel(abstention=rules)
    )


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """A function that saves images of one colour in folder/category and returns the folder."""

    def write(folder: str, category: str, *colours: tuple[int, int, int]) -> Path:
        target = tmp_path / folder / category
        target.mkdir(parents=True)
        for index, colour in enumerate(colours):
            Image.new("RGB", (32, 32), colour).save(target / f"{index}.png")
        return tmp_path / folder

    return write


@pytest.fixture
def folders(save: Callable[..., Path]) -> tuple[Path, Path, Path]:
    """Data, photographs and other scenes: most scenes are green, and one of the test photographs is green too."""
    data = save("data", "test/field", GREEN, GREEN)
    save("data", "test/lake", GREEN, RED)
    names = [f"category{number}" for number in range(40)]
    photographs = data
    for name in names[:12]:
        photographs = save("photographs", name, RED, RED)
    listed = list_photographs(photographs, Role.TEST)
    Image.new("RGB", (32, 32), GREEN).save(listed.paths[0])
    return data / "test", photographs, save("scenes", "pines", GREEN, GREEN, RED)


def test_rejected_images_are_counted_by_group(folders: tuple[Path, Path, Path]) -> None:
    """Images and rejections are counted by group; categories with accepted images are listed as near misses."""
    backend = make_backend(AerialGate(np.array([-1, 1, -1], np.float32), 0.0))  # mostly green
    report = measure_gate(backend, list_gate_images(backend, *folders))
    rows = {row.name: row for row in report.rows}
    assert (rows["test images"].images, rows["test images"].refused, rows["test images"].share) == (4, 1, 0.25)
    assert rows["test images, brightness x0.6"].refused == 1
    assert rows["test images, grey"].refused == 4
    assert (rows["other scenes, pines"].images, rows["other scenes, pines"].refused) == (3, 1)
    assert rows["photographs"].images - rows["photographs"].refused == 1
    assert len([row for row in report.rows if row.is_aerial]) == 2 + len(ALL_CHANGES)
    assert {row.name for row in report.rows if not row.is_aerial} == {"photographs"} | {k.category for k in KINDS}
    photograph = list_photographs(folders[1], Role.TEST).categories[0]
    assert NearMiss("photographs", photograph, 2, 1) in report.near_misses
    shares = [miss.accepted / miss.images for miss in report.near_misses]
    assert shares == sorted(shares, reverse=True)


def test_progress_counts_all_images(folders: tuple[Path, Path, Path]) -> None:
    """Progress counts every image of every group, and a gate with a high bias rejects none."""
    backend = make_backend(AerialGate(np.zeros(3, np.float32), 1.0))
    groups, done = list_gate_images(backend, folders[0]), [0]
    report = measure_gate(backend, groups, done.append)
    assert done == list(range(sum(map(len, groups)) + 1))
    assert sum(row.refused for row in report.rows) == 0


def test_model_without_a_gate_is_an_error() -> None:
    """Measuring a model without a gate raises an error that names the model."""
    backend = make_backend(None)
    with pytest.raises(DatasetError, match=r"stub-v1\.0 has no gate"):
        measure_gate(backend, [])


def test_folders_without_images_are_errors(tmp_path: Path, save: Callable[..., Path]) -> None:
    """A missing folder, and a folder without a category of the requested role, raise an error."""
    with pytest.raises(DatasetError, match="No images in"):
        list_photographs(tmp_path / "nowhere", Role.TEST)
    folder = save("photographs", "category", RED)
    other = Role.FIT if assign_role("category") is Role.TEST else Role.TEST
    with pytest.raises(DatasetError, match="too few categories"):
        list_photographs(folder, other)
