"""`atalaya models status`: a candidate, the evidence so far, and the evidence still missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import auth
import monitoring
from api.cli import run
from model.canary.contest import find_contest
from model.registry.state import ModelState, Version, serialise_state
from monitoring.canary.store import Counts, TrialNames, TrialStore
from storage.engine import open_engine
from storage.migrations import migrate

NAME, WIDTH = "tiny", 80
VERSIONS = {name: Version(name, f"digest of {name}", "2026-11-26T00:00:00+00:00") for name in ("1.0", "1.1")}
COUNTS: Counts = {"disagreement": (2, 58, 0), "error_rate": (0, 60, 0), "latency": (9, 51, 0)}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def state(home: Path, monkeypatch: pytest.MonkeyPatch) -> ModelState:
    """A registry in which 1.1 is the candidate, and an empty database."""
    state = ModelState(VERSIONS, {"production": "1.0", "candidate": "1.1"})
    (home / "models" / NAME).mkdir(parents=True)
    (home / "models" / NAME / "state.json").write_bytes(serialise_state(state))
    monkeypatch.chdir(home)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{home}/records.db")
    monkeypatch.setenv("MODEL__REGISTRY", f"file://{home}/models")
    return state


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Run:
    def status(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (run(["models", "status", *arguments]), *capsys.readouterr())

    return status


def with_store(home: Path, action: Callable[[TrialStore], Awaitable[object]]) -> None:
    """Migrate the database and run an action with its trial store."""

    async def act() -> None:
        engine = open_engine(f"sqlite:///{home}/records.db")
        await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
        await action(TrialStore(engine))
        await engine.dispose()

    asyncio.run(act())


def record(home: Path, state: ModelState, counts: Counts, verdict: str | None = None) -> None:
    """Record the counts and the verdict of a trial, as a gateway would."""
    contest = find_contest(NAME, state, production="production", candidate="candidate")
    assert contest is not None

    async def add(store: TrialStore) -> None:
        await store.begin(TrialNames(contest.id, NAME, contest.candidate, contest.production))
        await store.add(contest.id, counts, [], lambda _: verdict)

    with_store(home, add)


def test_the_evidence_fits_a_terminal(home: Path, state: ModelState, status: Run) -> None:
    """The status has a row for each metric and a sentence for each open one, in lines of at most 80 characters."""
    record(home, state, COUNTS)
    code, out, _ = status(NAME)
    assert code == 0
    assert out.startswith("tiny 1.0 is in production.\n1.1 is the candidate since ")
    assert "It gets copies of 10 % of the requests. The gateway only records the verdict.\n" in out
    (row,) = [line for line in out.splitlines() if line.strip().startswith("disagreement")]
    assert row.split() == ["disagreement", "60", "2", "0.0", "to", "18.8", "%", "8", "%", "open"]
    assert all(len(line) <= WIDTH for line in out.splitlines())
    assert "- The disagreement is at most 18.8 % and must be shown to be less than 8.0 %" in out


def test_a_verdict_is_shown_with_its_time(home: Path, state: ModelState, status: Run) -> None:
    """Once the trial has a verdict, the status shows it with its time."""
    record(home, state, COUNTS, "promote")
    _, out, _ = status(NAME)
    assert "1.1 is the candidate. Verdict at 20" in out
    assert ": promote.\n" in out


def test_the_document_has_all_numbers(home: Path, state: ModelState, status: Run) -> None:
    """`--json` prints the contest, the trial with its rows and verdict, and the settings."""
    record(home, state, COUNTS)
    _, out, _ = status(NAME, "--json")
    document = json.loads(out)
    assert document["contest"]["candidate"] == "1.1"
    assert document["trial"]["verdict"] == "hold"
    assert [row["comparisons"] for row in document["trial"]["rows"]] == [60, 60, 60, 0]
    assert document["settings"]["share"] == 0.1


def test_what_there_is_before_a_trial(home: Path, state: ModelState, status: Run) -> None:
    """The status says when no gateway has tried the candidate yet, and when there is no candidate."""
    with_store(home, lambda store: store.find("none"))
    assert status(NAME)[1].endswith(
        "1.1 is the candidate. It gets copies of 10 % of the requests. No gateway has tried it yet.\n"
    )
    alone = state.move_aliases({"candidate": None}, "cli:olga", "a test")
    (home / "models" / NAME / "state.json").write_bytes(serialise_state(alone))
    assert "There is no candidate: no other version has the alias 'candidate'." in status(NAME)[1]


def test_an_unknown_model_is_an_error(home: Path, state: ModelState, status: Run) -> None:
    """An unknown model name fails with one line."""
    assert state.aliases
    with_store(home, lambda store: store.find("none"))
    code, _, error = status("huge")
    assert (code, error) == (1, "error: There is no model 'huge'. Import one of its versions.\n")
