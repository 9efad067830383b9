"""Predictions that yield the CPU to all other work."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.backends.stub import StubBackend
from model.offline.background import Pacer, predict_in_background


class SchedulingBackend(StubBackend):
    """Records the scheduling policy of the thread that predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.policies = set[int]()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.policies.add(os.sched_getscheduler(0))
        return super().predict(pixels)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 100, 100)).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.iterdir())


def test_outputs_have_the_order_of_the_files(paths: list[Path]) -> None:
    """Each file gets its probabilities and its digest, in order, and progress is reported after each file."""
    done: list[int] = []
    outputs = predict_in_background(StubBackend(), paths, done.append)
    assert outputs.digests == tuple(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    assert outputs.probabilities.shape == (3, len(StubBackend().info.classes))
    assert done == [1, 2, 3]


def test_the_kernel_prefers_every_other_thread(paths: list[Path]) -> None:
    """A thread with the policy SCHED_IDLE predicts the images; the caller's thread keeps its own policy."""
    backend, before = SchedulingBackend(), os.sched_getscheduler(0)
    predict_in_background(backend, paths)
    assert backend.policies == {os.SCHED_IDLE}
    assert os.sched_getscheduler(0) == before


def test_an_error_in_progress_ends_the_work(paths: list[Path]) -> None:
    """An exception from `progress` reaches the caller, and no further image is predicted."""
    backend = SchedulingBackend()

    def fail(_: int) -> None:
        backend.policies.clear()
        raise MemoryError

    with pytest.raises(MemoryError):
        predict_in_background(backend, paths, fail)
    assert not backend.policies


def test_pauses_grow_while_others_want_the_processor() -> None:
    """If an image had the CPU for less than 70 % of its time, a pause follows, which doubles up to 0.5 s."""
    pacer = Pacer()
    assert [pacer.find_pause(1.0, 0.2) for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert pacer.find_pause(1.0, 0.7) == 0
    assert pacer.find_pause(1.0, 0.69) == 0.1
