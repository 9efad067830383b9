from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.artefact import read_manifest
from model.errors import DatasetError
from model.export import ExportOptions
from model.train import TrainOptions

keras = pytest.importorskip("keras", reason="needs the Keras environment")
h5py = pytest.importorskip("h5py")

from model.export.build import export  # noqa: E402  (needs TensorFlow)
from model.train.fit import train  # noqa: E402

pytestmark = [
    pytest.mark.keras,
    # Keras 3.15 reads its variables in a way that NumPy 2 is about to drop.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

COLOURS = {"field": (60, 140, 50), "lake": (40, 70, 150), "road": (120, 120, 125)}
STEPS = 2  # of 3 classes x 3 images in batches of 5
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 4 training and 2 test images each: a colour with some noise."""
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
    """Untrained weights of the backbone, in the form that training starts from."""
    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(256, 256, 3)).save_weights(path)
    return path


@pytest.fixture
def options(data: Path, backbone: Path, tmp_path: Path) -> TrainOptions:
    return TrainOptions(
        data=str(data),
        init=str(backbone),
        out=str(tmp_path / "run"),
        epochs=1,
        batch_size=5,
        validation_fraction=0.25,
        patience=9,
    )


def test_a_run_leaves_a_judged_model_that_exports(options: TrainOptions, tmp_path: Path) -> None:
    """Training writes the model, figures, card and plots, and its export carries them into the manifest."""
    train(options)
    out = Path(options.out)
    assert {path.name for path in out.iterdir()} >= {"model.keras", "metrics.json", "MODEL_CARD.md"}
    for plot in ("curves.png", "confusion.png"):
        with Image.open(out / plot) as image:
            assert image.width > 400
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classes"] == ["field", "lake", "road"]
    assert metrics["data"]["images"] == {"training": 9, "validation": 3, "test": 6}
    assert metrics["test"]["n"] == 6

    export(ExportOptions(model=str(out / "model.keras"), out=str(tmp_path / "toy-v1"), name="toy", version="1"))
    manifest = read_manifest(tmp_path / "toy-v1")
    assert tuple(manifest.classes) == ("field", "lake", "road")
    assert manifest.figures["test"] == {
        name: metrics["test"][name] for name in ("n", "accuracy", "macro_f1", "loss", "ece")
    }
    assert manifest.tools["training"] == metrics["tools"]
    assert (tmp_path / "toy-v1" / "MODEL_CARD.md").read_text() == (out / "MODEL_CARD.md").read_text()

    with pytest.raises(DatasetError, match="finished run"):
        train(options)


@contextmanager
def training_process(options: TrainOptions) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "model.train", json.dumps(asdict(options))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert process.poll() is None, "the training process ended"
        assert time.monotonic() < deadline, "the training process is too slow"
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue


def read_json(path: Path) -> Any:
    """What the file holds, or None while it is absent or half written."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def saved_epochs(run: Path) -> int:
    state = read_json(run / "checkpoint" / "training_metadata.json")
    return state["epoch"] if state else 0


def test_an_interrupted_run_goes_on_where_it_was(options: TrainOptions) -> None:
    """After SIGKILL the same command keeps the finished epochs, and the optimiser counts its steps on from there.

    The learning rate follows from the optimiser's step count, so the schedule goes on as well.
    """
    run = Path(options.out)
    options = TrainOptions(**{**asdict(options), "epochs": 3})
    with training_process(options) as process:
        wait_for(lambda: saved_epochs(run) >= 1 and len(read_json(run / "history.json") or []) >= 1, process)
    interrupted_at = saved_epochs(run)
    first = read_json(run / "history.json")[:interrupted_at]

    with training_process(options) as process:
        wait_for(lambda: saved_epochs(run) > interrupted_at, process)
        process.send_signal(signal.SIGSTOP)
        with h5py.File(run / "checkpoint" / "latest.weights.h5") as weights:
            steps = int(weights["optimizer/vars/0"][()])
        assert steps == saved_epochs(run) * STEPS
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE_S) == 0

    history = read_json(run / "history.json")
    assert len(history) == 3
    assert history[:interrupted_at] == first
    assert json.loads((run / "metrics.json").read_text())["epochs_run"] == 3
