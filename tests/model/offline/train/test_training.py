from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import to_builtins
from msgspec.structs import replace
from PIL import Image

from model.errors import DatasetError
from model.offline.train import Stage, TrainOptions
from model.offline.train.run import train
from tests.model.offline.conftest import ignores_array_copies
from tests.model.offline.train.toy_run import COLOURS, COUNTS, SIDE, STEPS, TIMEOUT_S, Resumed, read_json, write_data

pytestmark = [pytest.mark.keras, ignores_array_copies]


def test_interrupted_run_keeps_its_finished_epochs(resumed: Resumed) -> None:
    """After SIGKILL, the same command continues after the last complete epoch."""
    history = read_json(resumed.out / "history.json")
    assert len(resumed.before) == 1
    assert [epoch["size"] for epoch in history] == [64, SIDE, SIDE]
    assert history[: len(resumed.before)] == resumed.before


def test_interrupted_run_keeps_its_position_in_the_learning_rate_schedule(resumed: Resumed) -> None:
    """The optimiser, whose step count determines the learning rate, continues counting where it was killed."""
    assert resumed.steps == {2: 2 * STEPS, 3: 3 * STEPS}


def test_finished_run_contains_results_card_and_plots(resumed: Resumed) -> None:
    """A finished run contains the model, its results on every split, a model card and plots, but no state."""
    names = {path.name for path in resumed.out.iterdir()}
    assert names >= {"model.keras", "metrics.json", "MODEL_CARD.md"}
    assert "state.npz" not in names
    for plot in ("curves.png", "confusion.png", "robustness.png"):
        with Image.open(resumed.out / plot) as image:
            assert image.width > 400
    metrics = read_json(resumed.out / "metrics.json")
    assert metrics["classes"] == list(COLOURS)
    assert metrics["data"]["images"] == COUNTS
    assert metrics["epochs_run"] == 3
    assert metrics["test"]["n"] == COUNTS["test"]


def test_finished_run_is_not_trained_again(resumed: Resumed) -> None:
    """Training into the folder of a finished run raises an error, so its results always belong to its model."""
    with pytest.raises(DatasetError, match="finished run"):
        train(resumed.options)


def test_run_is_not_resumed_with_other_options(resumed: Resumed, tmp_path: Path) -> None:
    """Options that would change the split or the schedule cannot resume a run."""
    started = replace(resumed.options, out=str(tmp_path))
    (tmp_path / "options.json").write_text(json.dumps(to_builtins(started)))
    with pytest.raises(DatasetError, match="other options"):
        train(replace(started, seed=1))


def test_a_run_whose_report_could_not_be_written_is_finished_later(backbone: Path, tmp_path: Path) -> None:
    """If the report cannot be written, there is no model either, and the same command finishes the run."""
    out = tmp_path / "run"
    options = TrainOptions(
        data=str(write_data(tmp_path / "data")),
        init=str(backbone),
        out=str(out),
        stages=(Stage(64, 1),),
        batch_size=4,
        validation_fraction=0.25,
        input_size=64,
    )
    command = [sys.executable, "-m", "model.offline.train", json.dumps(to_builtins(options))]
    (out / "metrics.json").mkdir(parents=True)
    failed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert "metrics.json" in failed.stderr
    assert not (out / "model.keras").exists()
    (out / "metrics.json").rmdir()
    subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)
    assert read_json(out / "metrics.json")["epochs_run"] == 1
    assert (out / "model.keras").exists()
    assert not list(out.glob("unfinished*"))
