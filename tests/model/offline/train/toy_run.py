"""A small data set of 5 classes and 96 pixels, and a training run on it that is killed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins
from numpy.typing import NDArray
from PIL import Image

from model.offline.train import Stage, TrainOptions
from tests.support.paths import ROOT
from tests.support.polling import wait_until

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
# Trains, and stops the process each time it has saved its state, so that the test can read the state or kill it there.
_TRAIN = """
import os, pathlib, runpy, signal
replace = pathlib.Path.replace
def replace_and_stop(path, target):
    replaced = replace(path, target)
    if replaced.name == "state.npz":
        os.kill(os.getpid(), signal.SIGSTOP)
    return replaced
pathlib.Path.replace = replace_and_stop
runpy.run_module("model.offline.train", run_name="__main__")
"""


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
    command = [sys.executable, "-c", _TRAIN, json.dumps(to_builtins(options))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_stopped(process: subprocess.Popen[bytes]) -> None:
    """Wait until the training process has saved its state and stopped."""

    def is_stopped() -> bool:
        assert process.poll() is None, "the training process ended"
        return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG) is not None

    wait_until(is_stopped, TIMEOUT_S, "the training process is too slow")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_state(run: Path) -> tuple[int, int]:
    """Return the numbers of complete epochs and of optimiser steps in the checkpoint of the run."""
    with np.load(run / "state.npz") as state:
        scalars = [state[name] for name in state.files if name != "epochs" and state[name].shape == ()]
        # The other integer is the count of the Normalization layer, which stays 0.
        return int(state["epochs"]), max(int(value) for value in scalars if value.dtype.kind == "i")


@dataclass(frozen=True)
class Resumed:
    """A finished run that was killed once.

    `before` is its history at that time. `steps` maps epochs to the optimiser's step count in the checkpoint that the
    second process wrote after each epoch.
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
        wait_until_stopped(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before, steps = read_json(run / "history.json"), dict[int, int]()
    with training_process(options) as process:
        for _ in range(options.epochs - len(before)):
            wait_until_stopped(process)
            completed, steps[completed] = read_state(run)
            process.send_signal(signal.SIGCONT)
        assert process.wait(TIMEOUT_S) == 0
    return Resumed(options, before, steps)
