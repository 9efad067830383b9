"""`atalaya ledger replay` of predictions that a gateway with the stub back end has recorded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.cli import run
from api.settings import Settings
from tests.support.gateway import create_database
from tests.support.logs import discarded_logging

Replay = Callable[..., tuple[int, str, str]]


@pytest.fixture
def image(tmp_path: Path, sample: bytes) -> Path:
    path = tmp_path / "sent.jpg"
    path.write_bytes(sample)
    return path


@pytest.fixture
def predictions(client: TestClient, bearer: dict[str, str], sample: bytes) -> list[dict[str, Any]]:
    """The responses to three requests."""
    return [client.post("/v1/predictions", files={"file": sample}, headers=bearer).json() for _ in range(3)]


@pytest.fixture
def replay(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Replay]:
    """A function that runs the command on the gateway's database and returns its exit status and its output."""
    monkeypatch.chdir(tmp_path)
    create_database(f"sqlite:///{tmp_path}/var/atalaya.db")
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("MODEL__URL", "stub://")
    # Without these, the gateway of `client` would warn that they are missing.
    keys = {"AUTH__SIGNING_KEY": settings.auth.signing_key, "LEDGER__SIGNING_KEY": settings.ledger.signing_key}
    for name, key in keys.items():
        assert key is not None
        monkeypatch.setenv(name, key.get_secret_value())

    def start(*arguments: str) -> tuple[int, str, str]:
        status = run(["ledger", "replay", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    with discarded_logging():
        capsys.readouterr()
        yield start


def change_row(settings: Settings, statement: str, *values: Any) -> None:
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


def test_every_prediction_is_reproduced(predictions: list[dict[str, Any]], image: Path, replay: Replay) -> None:
    """Each prediction is reproduced; the output names label and model, or is one JSON document."""
    for response in predictions:
        status, out, err = replay(response["id"], str(image))
        assert (status, err) == (0, "")
        assert out.startswith(f"Identical, bit for bit: {response['label']}, probability {response['confidence']:.4f}")
        status, out, _ = replay(response["id"], str(image), "--json")
        assert (status, json.loads(out)["identical"]) == (0, True)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE ledger_payloads SET document = replace(document, 'stub', 'slab') WHERE id = ?", "was changed"),
        ("UPDATE ledger_payloads SET principal = 'olga' WHERE id = ?", "columns that contradict its document"),
        ("UPDATE ledger_entries SET at = '2020-01-01T00:00:00.000000Z' WHERE id = ?", "belongs to another entry"),
        ("UPDATE ledger_entries SET hash = replace(hash, '0', '1') WHERE id = ?", "was changed, or is out of place"),
        ("UPDATE ledger_entries SET seq = seq + 9 WHERE id = ?", "contains no prediction"),
    ],
)
def test_a_changed_record_is_not_replayed(
    predictions: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay, statement: str, message: str
) -> None:
    """A changed document, column, time, hash or number is reported, and nothing is replayed."""
    change_row(settings, statement, predictions[1]["id"])
    status, out, err = replay(predictions[1]["id"], str(image))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_a_changed_previous_entry_is_found(
    predictions: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay
) -> None:
    """An entry that does not follow its predecessor is not replayed."""
    change_row(settings, "UPDATE ledger_entries SET hash = ? WHERE id = ?", "0" * 64, predictions[0]["id"])
    status, _, err = replay(predictions[1]["id"], str(image))
    assert (status, "out of place" in err) == (1, True)


def test_missing_records_and_files_are_named(
    predictions: list[dict[str, Any]], settings: Settings, image: Path, replay: Replay
) -> None:
    """An erased prediction, an unknown one and a missing file are named in one line each."""
    change_row(settings, "DELETE FROM ledger_payloads WHERE id = ?", predictions[0]["id"])
    for wanted in (predictions[0]["id"], "nothing"):
        status, _, err = replay(wanted, str(image))
        assert (status, err.startswith(f"error: The ledger contains no prediction {wanted}.")) == (1, True)
    status, _, err = replay(predictions[1]["id"], str(image.with_name("gone.jpg")))
    assert (status, "gone.jpg" in err) == (1, True)


def test_a_rejected_request_is_not_replayed(
    client: TestClient, bearer: dict[str, str], image: Path, sample: bytes, replay: Replay
) -> None:
    """A recorded request without a prediction is reported as such."""
    assert client.post("/v1/predictions", files={"file": b"text"}, headers=bearer).status_code == 415
    # Rejected requests are recorded in the background, at the latest with the next prediction.
    assert client.post("/v1/predictions", files={"file": sample}, headers=bearer).status_code == 200
    entries = client.get("/v1/predictions", headers=bearer).json()["entries"]
    (refused,) = (entry["id"] for entry in entries if entry["code"] == "unsupported_image")
    status, _, err = replay(refused, str(image))
    assert (status, "got no prediction" in err) == (1, True)
