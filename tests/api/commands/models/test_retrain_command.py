"""`atalaya retrain`: when it is due and what happens to the candidate. A script replaces the Keras environment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from api.cli import run
from api.commands.database import open_migrated_engine, run_with_engine
from api.commands.models.retraining.due import find_due_reasons
from api.commands.models.retraining.folders import choose_folder
from api.commands.models.retraining.start import next_version
from api.errors import CommandFailed
from api.settings import load_settings
from model.registry.files import FileRegistry
from monitoring.chains.signing import new_private_key
from monitoring.chains.timestamps import format_timestamp
from monitoring.quality.drift.store import ALL, DriftFinding, DriftStore
from monitoring.quality.evaluation_store import EvaluationStore
from tests.model.importing.model_files import dense, model, write_hostile, write_keras
from tests.monitoring.quality.evaluations import make_evaluation
from tests.support.gateway import create_database
from tests.support.paths import ARTEFACT

MODEL = "efficientnetb0"
SCRIPT = """#!/bin/sh
case "$2" in
model.offline.retrain) mkdir -p {out}; cp {result}/* {out}/ ;;
*) cp -r {artefact} artefact ;;
esac
"""
Finish = Callable[..., None]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileRegistry:
    """A registry with version 1.1 in production, which MODEL__URL names."""
    create_database(f"sqlite:///{tmp_path}/atalaya.db")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/atalaya.db")
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{tmp_path}/models")
    monkeypatch.setenv("MODEL__URL", f"registry://{MODEL}")
    registry = FileRegistry(tmp_path / "models")
    registry.add(ARTEFACT)
    registry.move_aliases(MODEL, {"production": "1.1"}, who="a test", why="the first")
    return registry


@pytest.fixture
def finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finish:
    """Set how many test images the next run recognises; its import yields the shipped model as 1.2."""
    artefact, result, program = tmp_path / "converted", tmp_path / "result", tmp_path / "python"
    shutil.copytree(ARTEFACT, artefact, ignore=shutil.ignore_patterns("*.sig"))
    manifest = json.loads((artefact / "manifest.json").read_text())
    manifest["version"] = "1.2"
    manifest["figures"]["golden"] = {"accuracy": 0.98}
    (artefact / "manifest.json").write_text(json.dumps(manifest))
    result.mkdir()
    write_keras(result / "model.keras", model(dense()))
    program.write_text(SCRIPT.format(out=tmp_path / "run", result=result, artefact=artefact))
    program.chmod(0o755)
    monkeypatch.setenv("MODEL__KERAS_PYTHON", str(program))

    def finish(start: int, candidate: int) -> None:
        comparison = {"images": 210, "start_correct": start, "candidate_correct": candidate}
        metrics = {"comparison": {**comparison, "only_start": 0, "only_candidate": 0}}
        (result / "metrics.json").write_text(json.dumps(metrics))

    return finish


def retrain(folder: Path, *options: str) -> int:
    return run(["retrain", "--data", str(folder), "--out", str(folder / "run"), *options])


def test_candidate_gets_the_alias_and_production_stays(
    registry: FileRegistry, finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A candidate as good as its start model is imported as the next version and gets only the alias `candidate`."""
    finish(204, 204)
    assert retrain(tmp_path) == 0
    assert capsys.readouterr().out == (
        f"{MODEL} 1.2 recognises 204 of 210 test images, the start model 204. It is the candidate now.\n"
    )
    assert registry.read(MODEL).aliases == {"production": "1.1", "candidate": "1.2"}
    run(["models", "history", MODEL, "--alias", "candidate"])
    assert "retrained from efficientnetb0-v1.1: 204 of 210 test images recognised, 204" in capsys.readouterr().out


def test_worse_candidate_is_not_imported(
    registry: FileRegistry, finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A candidate that recognises fewer test images is an error; it is not imported, and stays in its run's folder."""
    finish(204, 203)
    assert retrain(tmp_path, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "candidate_worse"
    assert "recognises 203 of 210 test images, and the start model 204" in captured.err
    assert list(registry.read(MODEL).versions) == ["1.1"]
    assert (tmp_path / "run" / "model.keras").exists()


def test_result_passes_the_gate_of_imports(
    registry: FileRegistry, finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result with a class that is not on the allow-list is rejected, as in any import."""
    finish(204, 210)
    write_hostile("lambda", tmp_path / "result" / "model.keras", tmp_path / "canary")
    assert retrain(tmp_path) == 1
    assert "'keras.layers.Lambda', which is not on the allow-list" in capsys.readouterr().err
    assert registry.read(MODEL).aliases == {"production": "1.1"}


@pytest.mark.usefixtures("registry")
def test_start_model_passes_the_gate_of_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A start model with a class that is not on the allow-list is rejected."""
    file = write_hostile("lambda", tmp_path / "evil.keras", tmp_path / "canary")
    assert retrain(tmp_path, "--from", str(file)) == 1
    assert "not on the allow-list" in capsys.readouterr().err


@pytest.mark.usefixtures("registry")
def test_run_is_continued_only_on_request(finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training in the folder of an earlier run is an error that suggests --resume, which continues the run."""
    finish(204, 204)
    write_run(tmp_path / "run")
    assert retrain(tmp_path) == 1
    assert "Continue it with --resume" in capsys.readouterr().err
    assert retrain(tmp_path, "--resume") == 0


def test_packing_prints_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, --pack prints the file that it wrote and the command to run on the other machine."""
    for folder in ("train/field", "train/lake", "test/field", "test/lake"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").touch()
    start, pack = write_keras(tmp_path / "start.keras", model(dense())), tmp_path / "pack.pyz"
    assert retrain(tmp_path, "--from", str(start), "--pack", str(pack), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"file": str(pack), "next": "On the other machine: python pack.pyz FOLDER"}
    assert pack.exists()


def write_run(folder: Path, *, recognised: int | None = None) -> None:
    """Write the files of an interrupted run; with `recognised`, of a complete one whose start model scored 204."""
    folder.mkdir()
    (folder / "options.json").write_text("{}")
    if recognised is not None:
        counts = {"images": 210, "start_correct": 204, "candidate_correct": recognised}
        metrics = {"comparison": {**counts, "only_start": 0, "only_candidate": 0}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "model.keras").touch()


def test_each_run_has_a_folder(tmp_path: Path) -> None:
    """A run gets a new folder; with --resume it continues in the last one, unless that has a worse candidate."""
    first, second = tmp_path / "m-v1.2", tmp_path / "m-v1.2-2"

    def choose() -> list[Path]:
        return [choose_folder(None, first, resume=resume) for resume in (False, True)]

    assert choose() == [first, first]
    write_run(first)
    assert choose() == [second, first]
    write_run(second, recognised=204)  # whose import was interrupted
    assert choose() == [tmp_path / "m-v1.2-3", second]
    write_run(tmp_path / "m-v1.2-3", recognised=203)
    assert choose() == [tmp_path / "m-v1.2-4"] * 2
    with pytest.raises(CommandFailed, match="whose candidate was worse"):
        choose_folder(tmp_path / "m-v1.2-3", first, resume=True)


def test_nothing_is_due_for_a_young_version(
    registry: FileRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --if-due and no reason, nothing is trained, and the exit status is 0."""
    assert retrain(tmp_path, "--if-due") == 0
    assert capsys.readouterr().out == "No retraining is due.\n"
    assert list(registry.read(MODEL).versions) == ["1.1"]


def test_nothing_is_due_while_a_candidate_waits(
    registry: FileRegistry, finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --if-due, nothing is trained while a candidate waits for its verdict, even if retraining is due."""
    finish(204, 204)
    assert retrain(tmp_path) == 0
    loss = make_evaluation(model=MODEL, version="1.1", accuracy=0.9, is_loss=True)
    run_with_engine(load_settings(), lambda engine: EvaluationStore(engine).add(loss))
    capsys.readouterr()
    assert retrain(tmp_path, "--if-due") == 0
    assert capsys.readouterr().out == f"{MODEL} 1.2 waits for its verdict.\n"
    registry.move_aliases(MODEL, {"candidate": None}, who="a test", why="taken back")
    assert len(find_due_reasons(load_settings())) == 1


@pytest.mark.usefixtures("registry")
def test_old_version_is_due() -> None:
    """A retraining is due when the version is older than CALENDAR__RETRAINING_DAYS."""
    settings, now = load_settings(), datetime.now(UTC)
    assert find_due_reasons(settings, now + timedelta(days=119)) == []
    (reason,) = find_due_reasons(settings, now + timedelta(days=121))
    assert reason == "efficientnetb0 1.1 is 121 days old, and CALENDAR__RETRAINING_DAYS is 120."


@pytest.mark.usefixtures("registry")
def test_lost_accuracy_is_a_reason() -> None:
    """A retraining is due while the last evaluation of the served model on the same images is a significant loss."""
    settings = load_settings()
    loss = make_evaluation(model=MODEL, version="1.1", accuracy=0.9, is_loss=True)
    run_with_engine(settings, lambda engine: EvaluationStore(engine).add(loss))
    (reason,) = find_due_reasons(settings)
    assert reason.startswith(
        "efficientnetb0-v1.1 became worse: its accuracy in the evaluation of 2027-01-15 was 0.9000"
    )
    others = make_evaluation(model=MODEL, version="1.1", data_digest="ef" * 32)
    run_with_engine(settings, lambda engine: EvaluationStore(engine).add(others))
    assert find_due_reasons(settings) == [reason]
    accepted = make_evaluation(model=MODEL, version="1.1", accuracy=0.9)
    run_with_engine(settings, lambda engine: EvaluationStore(engine).add(accepted))
    assert find_due_reasons(settings) == []


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("version", "caller", "is_due"), [("1.1", ALL, True), ("1.1", "ana", False), ("1.0", ALL, False)]
)
def test_drift_of_all_callers_is_a_reason(version: str, caller: str, is_due: bool) -> None:
    """A retraining is due while the served version drifts over all callers; other drift does not count."""
    settings, now = load_settings(), format_timestamp(datetime.now(UTC))
    with open_migrated_engine(settings) as engine, engine.begin() as connection:
        store = DriftStore(connection)
        (state,) = store.lock([(f"{MODEL}-v{version}", caller)]).values()
        store.save([replace(state, seen_at=now)])
        store.begin_findings([DriftFinding(f"{MODEL}-v{version}", caller, "brightness", now, now, "lower", 0.5, 0.3)])
    assert bool(find_due_reasons(settings)) == is_due


@pytest.mark.usefixtures("registry")
def test_unusable_tracking_server_is_found_before_the_training(
    finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A retraining does not start when the MLflow server cannot be reached."""
    finish(204, 204)
    assert retrain(tmp_path, "--tracking", "http://127.0.0.1:9") == 1
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("versions", "expected"), [([], "1.0"), (["1.9", "1.10", "1.2"], "1.11"), (["2.0", "1.3", "nightly"], "2.1")]
)
def test_next_version_counts_the_minor_number(versions: list[str], expected: str) -> None:
    """The next version increments the minor number of the highest one, compared numerically."""
    assert next_version(versions) == expected
