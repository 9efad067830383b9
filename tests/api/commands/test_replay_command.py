"""`atalaya ledger replay` on what a gateway with the stub back end has recorded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.cli import run
from api.settings import Settings

Replay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def image(tmp_path: Path, sample: bytes) -> Path:
    path = tmp_path / "sent.jpg"
    path.write_bytes(sample)
    return path


@pytest.fixture
def given(client: TestClient, bearer: dict[str, str], sample: bytes) -> list[dict[str, Any]]:
    """The answers to three predictions."""
    return [client.post("/v1/predictions", files={"file": sample}, headers=bearer).json() for _ in range(3)]


@pytest.fixture
def replay(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Replay:
    """Run the command beside the gateway; returns its exit status and its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("MODEL__URL", "stub://")
    capsys.readouterr()

    def start(*arguments: str) -> tuple[int, str, str]:
        status = run(["ledger", "replay", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return start


def change(settings: Settings, statement: str, *values: Any) -> None:
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


def test_every_answer_is_reproduced(given: list[dict[str, Any]], image: Path, replay: Replay) -> None:
    """Each prediction comes out the same; its label and model are told, or one JSON document."""
    for answer in given:
        status, out, err = replay(answer["id"], str(image))
        assert (status, err) == (0, "")
        assert out.startswith(f"Identical, bit for bit: {answer['label']}, probability {answer['confidence']:.4f}")
        status, out, _ = replay(answer["id"], str(image), "--json")
        assert (status, json.loads(out)["identical"]) == (0, True)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE ledger_payloads SET document = replace(document, 'stub', 'slab') WHERE id = ?", "was changed"),
        ("UPDATE ledger_payloads SET principal = 'olga' WHERE id = ?", "columns that do not say what its document"),
        ("UPDATE ledger_entries SET at = '2020-01-01T00:00:00.000000Z' WHERE id = ?", "belongs to another entry"),
        ("UPDATE ledger_entries SET hash = replace(hash, '0', '1') WHERE id = ?", "was changed, or is out of place"),
        ("UPDATE ledger_entries SET seq = seq + 9 WHERE id = ?", "holds no prediction"),
    ],
)
def test_a_changed_record_proves_nothing(
    given: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay, statement: str, told: str
) -> None:
    """A document, a column, a time, a hash or a place that somebody changed is told before anything is reproduced."""
    change(settings, statement, given[1]["id"])
    status, out, err = replay(given[1]["id"], str(image))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert told in err


def test_a_changed_entry_before_it_is_noticed(
    given: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay
) -> None:
    """An entry must follow the one before it."""
    change(settings, "UPDATE ledger_entries SET hash = ? WHERE id = ?", "0" * 64, given[0]["id"])
    status, _, err = replay(given[1]["id"], str(image))
    assert (status, "out of place" in err) == (1, True)


def test_what_is_not_there_is_named(
    given: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay
) -> None:
    """A prediction that was forgotten, one that never was and a missing file are told in one line each."""
    change(settings, "DELETE FROM ledger_payloads WHERE id = ?", given[0]["id"])
    for wanted in (given[0]["id"], "nothing"):
        status, _, err = replay(wanted, str(image))
        assert (status, err.startswith(f"error: The ledger holds no prediction {wanted}.")) == (1, True)
    status, _, err = replay(given[1]["id"], str(image.with_name("gone.jpg")))
    assert (status, "gone.jpg" in err) == (1, True)


def test_a_refused_request_has_nothing_to_reproduce(
    client: TestClient, bearer: dict[str, str], image: Path, sample: bytes, replay: Replay
) -> None:
    """What got no prediction is on record, and is told to be that."""
    assert client.post("/v1/predictions", files={"file": b"text"}, headers=bearer).status_code == 415
    # Refusals are written behind their answers, with the next prediction at the latest.
    assert client.post("/v1/predictions", files={"file": sample}, headers=bearer).status_code == 200
    entries = client.get("/v1/predictions", headers=bearer).json()["entries"]
    (refused,) = (entry["id"] for entry in entries if entry["code"] == "unsupported_image")
    status, _, err = replay(refused, str(image))
    assert (status, "got no prediction" in err) == (1, True)
