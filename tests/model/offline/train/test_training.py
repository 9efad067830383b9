from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from model.errors import DatasetError
from model.imaging.input_spec import InputSpec
from model.offline.export import ExportOptions
from model.offline.export.build import export
from model.offline.train import Stage, TrainOptions
from model.offline.train.run import train
from model.registry.artefact import read_manifest

pytestmark = [
    pytest.mark.keras,
    # Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

COLOURS = {"field": (60, 140, 50), "lake": (40, 70, 150), "road": (120, 120, 125)}
STEPS = 2  # full batches of 4 from 3 classes x 3 images
TIMEOUT_S = 600.0  # ten times what an idle machine needs
RESULT_NAMES = ("n", "accuracy", "macro_f1", "loss", "ece")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with 4 training and 2 test images each: one colour with noise."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(5)
    for name, colour in COLOURS.items():
        for split, count in (("train", 4), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noisy = np.clip(generator.normal(colour, 12, (64, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of the backbone as a .weights.h5 file."""
    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(256, 256, 3)).save_weights(path)
    return path


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
    """Return the complete epochs, and the steps of the optimiser, that the run has saved."""
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


@pytest.fixture(scope="module")
def resumed(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """Train for 3 epochs: one process is killed after the first epoch, and a second one continues the run."""
    run = tmp_path_factory.mktemp("runs") / "toy"
    options = TrainOptions(
        data=str(data),
        init=str(backbone),
        out=str(run),
        stages=(Stage(32, 2), Stage(64, 1)),
        batch_size=4,
        validation_fraction=0.25,
        input_size=64,
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


def test_interrupted_run_keeps_its_finished_epochs(resumed: Resumed) -> None:
    """After SIGKILL, the same command continues after the last complete epoch."""
    history = read_json(resumed.out / "history.json")
    assert len(resumed.before) >= 1
    assert len(history) == 3
    assert history[: len(resumed.before)] == resumed.before


def test_interrupted_run_keeps_its_position_in_the_learning_rate_schedule(resumed: Resumed) -> None:
    """The optimiser, whose step count determines the learning rate, continues counting where it was killed."""
    assert resumed.steps == {epoch: epoch * STEPS for epoch in resumed.steps}


def test_finished_run_contains_results_card_and_plots(resumed: Resumed) -> None:
    """A finished run contains the model, its results on every split, a model card and plots, but no state."""
    names = {path.name for path in resumed.out.iterdir()}
    assert names >= {"model.keras", "metrics.json", "MODEL_CARD.md"}
    assert "state.npz" not in names
    for plot in ("curves.png", "confusion.png", "robustness.png"):
        with Image.open(resumed.out / plot) as image:
            assert image.width > 400
    metrics = read_json(resumed.out / "metrics.json")
    assert metrics["classes"] == ["field", "lake", "road"]
    assert metrics["data"]["images"] == {"training": 9, "extra": 0, "validation": 3, "test": 6}
    assert metrics["epochs_run"] == 3
    assert metrics["test"]["n"] == 6


def test_export_of_a_trained_model_keeps_its_record(resumed: Resumed, tmp_path: Path) -> None:
    """The artefact contains the classes, results, versions and model card that training wrote."""
    out = tmp_path / "toy-v1"
    export(ExportOptions(model=str(resumed.out / "model.keras"), out=str(out), name="toy", version="1"))
    manifest, metrics = read_manifest(out), read_json(resumed.out / "metrics.json")
    assert manifest.classes == ("field", "lake", "road")
    assert manifest.input_spec == InputSpec(64, 64, "lanczos")
    for split in ("validation", "test"):
        assert manifest.results[split] == {name: metrics[split][name] for name in RESULT_NAMES}
    assert manifest.tools["training"] == metrics["tools"]
    assert (out / "MODEL_CARD.md").read_text() == (resumed.out / "MODEL_CARD.md").read_text()


def test_finished_run_is_not_trained_again(resumed: Resumed) -> None:
    """Training into the folder of a finished run raises an error, so its results always belong to its model."""
    with pytest.raises(DatasetError, match="finished run"):
        train(resumed.options)


def test_run_is_not_resumed_with_other_options(resumed: Resumed, tmp_path: Path) -> None:
    """Options that would change the split or the schedule cannot resume a run."""
    started = replace(resumed.options, out=str(tmp_path))
    (tmp_path / "options.json").write_text(json.dumps(asdict(started)))
    with pytest.raises(DatasetError, match="other options"):
        train(replace(started, seed=1))
