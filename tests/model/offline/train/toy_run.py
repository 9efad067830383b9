"""A small data set of 5 classes and 96 pixels, and a training run on it that is killed once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.offline.train import Stage, TrainOptions
from tests.support.paths import ROOT

SIDE = 96
COLOURS = {
    "field": (70, 150, 60),
    "lake": (40, 70, 150),
    "road": (120, 120, 125),
    "sand": (210, 190, 140),
    "scrub": (120, 110, 60),
}
COUNTS = {"training": 20, "extra": 0, "validation": 5, "test": 10}
STEPS = 5  # full batches of 4 from 20 images
TIMEOUT_S = 600.0  # ten times what an idle machine needs


@cache
def read_samples() -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted((ROOT / "samples").glob("*.jpg"))]


def make_scene(generator: np.random.Generator, name: str) -> NDArray[np.uint8]:
    """A part of an aerial image in the colour of a class.

    Textures are natural because many channels of the network hardly vary on synthetic ones, and batch normalisation
    amplifies the rounding errors of such channels.
    """
    samples = read_samples()
    sample = samples[generator.integers(len(samples))]
    top, left = (int(generator.integers(side - SIDE + 1)) for side in sample.shape[:2])
    part = sample[top : top + SIDE, left : left + SIDE]
    scene: NDArray[np.uint8] = np.clip(part - part.mean(axis=(0, 1)) + COLOURS[name], 0, 255).astype(np.uint8)
    return scene


def write_data(root: Path) -> Path:
    """Write 5 training and 2 test images of each class; returns `root`."""
    generator = np.random.default_rng(5)
    for name in COLOURS:
        for split, count in (("train", 5), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(make_scene(generator, name)).save(folder / f"{index}.png")
    return root


@contextmanager
def training_process(options: TrainOptions) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "model.offline.train", json.dumps(asdict(options))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        assert process.poll() is None, "the training process ended"
        assert time.monotonic() < deadline, "the training process is too slow"
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue


def read_json(path: Path) -> Any:
    """Return the content of the file, or None while it is missing or incomplete."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def read_state(run: Path) -> tuple[int, int]:
    """Return the numbers of complete epochs and of optimiser steps in the checkpoint of the run."""
    path = run / "state.npz"
    if not path.exists():
        return 0, 0
    with np.load(path) as state:
        scalars = [state[name] for name in state.files if name != "epochs" and state[name].shape == ()]
        # The other integer is the count of the Normalization layer, which stays 0.
        return int(state["epochs"]), max(int(value) for value in scalars if value.dtype.kind == "i")


@dataclass(frozen=True)
class Resumed:
    """A finished run that was killed once.

    `before` is its history at that time. `steps` maps epochs to the optimiser's step count in the checkpoint that the
    second process wrote after that epoch.
    """

    options: TrainOptions
    before: list[dict[str, float]]
    steps: dict[int, int]

    @property
    def out(self) -> Path:
        return Path(self.options.out)


def train_twice(data: Path, backbone: Path, run: Path) -> Resumed:
    """Train for 3 epochs: one process is killed after the first epoch, and a second one continues the run."""
    options = TrainOptions(
        data=str(data),
        init=str(backbone),
        out=str(run),
        # Compiling the first step of a size takes most of the time, so each process trains on one size.
        stages=(Stage(64, 1), Stage(SIDE, 2)),
        batch_size=4,
        # The few steps must not spoil the features of the shipped backbone.
        peak_learning_rate=5e-5,
        validation_fraction=0.25,
        input_size=SIDE,
        resize_filter="lanczos",
    )
    with training_process(options) as process:
        wait_for(lambda: read_state(run)[0] >= 1, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    epochs, _ = read_state(run)
    before = read_json(run / "history.json")[:epochs]
    with training_process(options) as process:
        wait_for(lambda: read_state(run)[0] > epochs, process)
        process.send_signal(signal.SIGSTOP)
        completed, count = read_state(run)
        process.send_signal(signal.SIGCONT)
        assert process.wait(TIMEOUT_S) == 0
    steps = {completed: count}
    return Resumed(options, before, steps)
