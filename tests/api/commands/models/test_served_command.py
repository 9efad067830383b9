"""`atalaya evaluate --served`: evaluate the served model, record the result and compare it with earlier ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from api.cli import run
from api.commands.database import run_with_engine
from api.settings import Settings, load_settings
from model.imaging.input_spec import InputSpec
from monitoring.quality.evaluation_store import EvaluationStore
from monitoring.quality.evaluations import EvaluationRecord
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore
from tests.model.backends.oip.scripted_engine import ScriptedEngine, describe_model
from tests.model.backends.tiny_onnx import CLASSES, write_tiny_artefact
from tests.support.servers.running import running

EvaluateServed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A model that classifies all images correctly, and one that misclassifies all."""
    folders = {"good": tmp_path / "good", "bad": tmp_path / "bad"}
    for name, folder in folders.items():
        folder.mkdir()
        version = {"good": "1.0", "bad": "1.1"}[name]
        write_tiny_artefact(folder, InputSpec(24, 24), version=version, inverted=name == "bad")
    return folders


@pytest.fixture
def served(
    environment: Settings,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> EvaluateServed:
    """Run `atalaya evaluate --served --json` for one of the models, on six images in three classes."""
    assert environment.ledger_key()
    for position, name in enumerate(CLASSES):
        folder = tmp_path / "data" / "test" / name
        folder.mkdir(parents=True)
        for number in range(2):
            colour = tuple(100 + 3 * (channel == position) + number for channel in range(3))
            Image.new("RGB", (24, 24), colour).save(folder / f"{number}.png")
    monkeypatch.setenv("MODEL__VALIDATION_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODEL__PREPARE", "false")

    def run_served(model: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("MODEL__URL", model if ":" in model else f"onnx://{models[model]}")
        capsys.readouterr()
        status = run(["evaluate", "--served", *arguments])
        return status, *capsys.readouterr()

    return run_served


def read_evaluations() -> list[EvaluationRecord]:
    return list(run_with_engine(load_settings(), lambda engine: EvaluationStore(engine).list()))


def test_a_loss_is_reported_until_it_is_accepted(served: EvaluateServed, capsys: pytest.CaptureFixture[str]) -> None:
    """The command fails for a worse model, until the loss is accepted. The audit log records that."""
    status, out, _ = served("good", "--json")
    first = json.loads(out)
    assert status == 0
    assert (first["model"], first["n"], first["accuracy"], first["comparison"]) == ("tiny", 6, 1.0, None)
    assert first["lower"] == pytest.approx(0.6097, abs=1e-4)
    for _ in range(2):
        status, out, error = served("bad", "--json")
        worse = json.loads(out)
        assert (status, worse["accuracy"], worse["is_loss"]) == (1, 0.0, True)
        assert worse["comparison"] == {"reference": first["id"], "lost": 6, "gained": 0, "p_value": 2 / 2**6}
        assert error.startswith("error: tiny-v1.1 is significantly worse than tiny-v1.0 on the same images.")
    assert served("bad", "--accept-loss")[0] == 0
    status, out, _ = served("bad")
    assert status == 0
    assert "0 images are no longer correct, 0 became correct (p = 1)" in out
    assert served("good")[0] == 0
    (runs,) = run_with_engine(load_settings(), lambda engine: TaskRunStore(engine).list())
    assert (runs.task, runs.failures) == (Task.EVALUATE_SERVED, 0)
    assert run(["audit", "--event", "evaluation", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    accepted = (entry["outcome"], entry["target"], entry["detail"])
    assert accepted == ("loss_accepted", "model:tiny-v1.1", {"reference": first["id"]})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_only_the_same_images_are_compared(served: EvaluateServed, tmp_path: Path) -> None:
    """Renamed images count as the same; after an image is added there is no earlier evaluation to compare with."""
    assert served("good")[0] == 0
    folder = tmp_path / "data" / "test" / "red"
    (folder / "0.png").rename(folder / "9.png")
    status, out, _ = served("bad", "--json")
    assert (status, json.loads(out)["comparison"]["lost"]) == (1, 6)
    Image.new("RGB", (24, 24), (120, 100, 100)).save(folder / "new.png")
    status, out, _ = served("bad")
    assert status == 0
    assert "There is no earlier evaluation of these images." in out
    assert [record.n for record in read_evaluations()] == [6, 6, 7]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_model_on_an_engine_is_evaluated_there(
    served: EvaluateServed, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine of MODEL__URL predicts the images; the record has no digest, because the engine reports none."""
    monkeypatch.setenv("MODEL__MANIFEST", str(models["good"]))
    with running(ScriptedEngine()) as engine:
        engine.script.model = describe_model(inputs=[{"name": "x", "datatype": "UINT8", "shape": [-1, 24, 24, 3]}])
        status, out, _ = served(f"oip+http://{engine.endpoint}/tiny", "--json")
    result = json.loads(out)
    assert (status, result["model"], result["accuracy"], result["digest"]) == (0, "tiny", 1.0, "")
    assert len(engine.script.requests) == 6


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_evaluation_leaves_memory_to_the_gateway(served: EvaluateServed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without enough memory the command fails, prints no result and is recorded as a failed run."""
    monkeypatch.setattr("api.commands.models.quality.served.NEEDED_BYTES", 1 << 60)
    status, out, error = served("good")
    assert (status, out) == (1, "")
    assert "Run the evaluation in a container of its own, or raise the memory limit." in error
    (runs,) = run_with_engine(load_settings(), lambda engine: TaskRunStore(engine).list())
    assert (runs.task, runs.failures) == (Task.EVALUATE_SERVED, 1)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--served", "--gate"), 2, "--served takes only --data, --accept-loss and --json."),
        (("--accept-loss", "--data", "data"), 2, "--accept-loss needs --served."),
        ((), 2, "Give --data a folder of labelled images, or use --served."),
        (("--served",), 1, "error: There are no images to evaluate. Set MODEL__VALIDATION_DATA"),
    ],
)
def test_wrong_options(
    environment: Settings,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    """Options that cannot be combined, and missing images, are errors that say what to do."""
    assert environment.model.validation_data is None
    assert run(["evaluate", *arguments]) == status
    assert message in capsys.readouterr().err
