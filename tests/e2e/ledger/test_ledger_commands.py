"""The commands of `atalaya ledger` beside a running gateway with the shipped model."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.support.gateway import Gateway
from tests.support.paths import ARTEFACT, FOREST, SHRUBLAND


@pytest.fixture
def gateway(new_gateway: Callable[..., Gateway]) -> Gateway:
    return new_gateway()


def predict(gateway: Gateway, image: Path = FOREST, user: str = "ana") -> str:
    response = gateway.client(user).post("/v1/predictions", files={"file": image.read_bytes()})
    assert response.status_code == 200, response.text
    prediction_id: str = response.json()["id"]
    return prediction_id


def execute(gateway: Gateway, statement: str) -> None:
    """Change the database behind the gateway's back."""
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        connection.execute(statement)


def test_a_replay_is_identical_to_the_last_bit(gateway: Gateway) -> None:
    """`replay` reproduces a prediction exactly from the file that was sent, and rejects another file."""
    prediction_id = predict(gateway)
    replay = gateway.run("ledger", "replay", prediction_id, str(FOREST), "--json")
    assert replay.returncode == 0, replay.stderr
    assert json.loads(replay.stdout) == {
        "id": prediction_id,
        "identical": True,
        "differences": [],
        "largest_difference": 0.0,
    }
    text = gateway.run("ledger", "replay", prediction_id, str(FOREST))
    assert text.stdout.startswith("Identical, bit for bit: ")
    other = gateway.run("ledger", "replay", prediction_id, str(SHRUBLAND))
    assert (other.returncode, other.stdout) == (1, "")
    assert "another image" in other.stderr
    unknown = gateway.run("ledger", "replay", prediction_id[:-4] + "0000", str(FOREST))
    assert unknown.returncode == 1


def test_a_replay_that_cannot_be_identical_says_why(gateway: Gateway) -> None:
    """`replay` finds the model by its digest, and reports a model that is missing and a record that was changed."""
    prediction_id = predict(gateway)
    gateway.environment["MODEL__URL"] = "stub://"
    found = gateway.run("ledger", "replay", prediction_id, str(FOREST))
    assert found.returncode == 0, found.stderr
    folder = str(gateway.folder)
    missing = gateway.run("ledger", "replay", prediction_id, str(FOREST), "--model", folder)
    assert missing.returncode == 1
    assert "No folder holds efficientnetb0-v1.1" in missing.stderr
    folder = str(ARTEFACT)
    assert gateway.run("ledger", "replay", prediction_id, str(FOREST), "--model", folder).returncode == 0
    execute(gateway, "UPDATE ledger_payloads SET document = replace(document, 'forest', 'desert')")
    changed = gateway.run("ledger", "replay", prediction_id, str(FOREST), "--model", folder)
    assert changed.returncode == 1
    assert "was changed" in changed.stderr


def test_the_ledger_verifies(gateway: Gateway) -> None:
    """`verify` accepts a running gateway's ledger with the public key alone, checks anchors, and finds changes."""
    predict(gateway)
    key = gateway.run("ledger", "key").stdout.strip()
    del gateway.environment["LEDGER__SIGNING_KEY"]
    verified = gateway.run("ledger", "verify", "--public-key", key)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("1 entry of 1 writer, unchanged.")
    anchor = verified.stdout.split()[-1]
    predict(gateway)
    again = gateway.run("ledger", "verify", "--public-key", key, "--anchor", anchor, "--json")
    assert json.loads(again.stdout)["ok"] is True
    forged = gateway.run("ledger", "verify", "--public-key", key, "--anchor", f"1:{'f' * 64}")
    assert forged.returncode == 1
    assert "The anchor, checkpoint 1, is missing, or was replaced" in forged.stderr
    unknown = gateway.run("ledger", "verify", "--public-key", "A" * 43 + "=")
    assert "unknown key" in unknown.stderr
    execute(gateway, "DELETE FROM ledger_payloads WHERE seq = 2")
    changed = gateway.run("ledger", "verify", "--public-key", key)
    assert (changed.returncode, changed.stdout) == (1, "")
    assert "The payload of entry 2 of " in changed.stderr


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_export_verifies(gateway: Gateway, form: str) -> None:
    """A full export and one of a single user verify, a truncated one does not; only its owner may read the file."""
    gateway.add_user("bob")
    for user in ("ana", "ana", "bob"):
        predict(gateway, user=user)
    path = gateway.folder / f"export.{form}"
    export = gateway.run("ledger", "export", "--format", form, str(path), "--json")
    assert json.loads(export.stdout) == {"entries": 3, "payloads": 3}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert gateway.run("ledger", "verify", str(path)).returncode == 0
    one = gateway.run("ledger", "export", "--format", form, "--principal", "bob", str(path), "--json")
    assert json.loads(one.stdout) == {"entries": 3, "payloads": 1}
    verified = gateway.run("ledger", "verify", str(path))
    assert verified.returncode == 0, verified.stderr
    assert "2 are withheld: this export proves only what it contains" in verified.stdout
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert gateway.run("ledger", "verify", str(path)).returncode == 1


def test_a_parquet_export_has_what_drift_is_found_in(gateway: Gateway) -> None:
    """Label, confidence, size, brightness, sharpness and gate score of each prediction can be read as columns."""
    predict(gateway)
    path = gateway.folder / "export.parquet"
    assert gateway.run("ledger", "export", "--format", "parquet", str(path)).returncode == 0
    rows = pyarrow.parquet.read_table(path, filters=[("kind", "=", "prediction")]).to_pylist()
    assert [(row["label"], row["width"], row["height"]) for row in rows] == [("forest", 256, 256)]
    assert 0.9 < rows[0]["confidence"] <= 1
    assert 0 < rows[0]["sharpness"] < rows[0]["brightness"] < 255
    assert rows[0]["gate_score"] > 0


def test_an_export_of_a_period_verifies(gateway: Gateway) -> None:
    """An export of a period verifies although it contains only part of a chain; if any line is removed, it does not."""
    times, client = [], gateway.client()  # one login: all four entries are written before the second checkpoint
    for _ in range(4):
        client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).raise_for_status()
        times.append(client.get("/v1/predictions?limit=1").json()["entries"][0]["at"])
    path = gateway.folder / "window.jsonl"
    export = gateway.run("ledger", "export", "--since", times[1], "--until", times[3], str(path), "--json")
    assert json.loads(export.stdout)["payloads"] == 2
    verified = gateway.run("ledger", "verify", str(path))
    assert verified.returncode == 0, verified.stderr
    lines = path.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["header", "cut", "entry", "entry", "entry", "head"]
    for left_out in range(1, len(lines)):
        path.write_text("\n".join(lines[:left_out] + lines[left_out + 1 :]) + "\n")
        assert gateway.run("ledger", "verify", str(path)).returncode == 1, lines[left_out]


def test_erasing_and_pruning_are_audited_and_the_ledger_still_verifies(gateway: Gateway) -> None:
    """`erase` and `prune` beside a running gateway appear in the audit log, and the ledger verifies after both."""
    prediction_id = predict(gateway)
    erased = gateway.run("ledger", "erase", "--principal", "ana", "--yes").stdout
    assert erased == "Erased 1 prediction and no images (IMAGES__URL is not set) of ana.\n"
    assert gateway.client().get(f"/v1/predictions/{prediction_id}").status_code == 404
    predict(gateway)
    assert "1 was erased." in gateway.run("ledger", "verify").stdout
    gateway.environment["LEDGER__KEEP_DAYS"] = "1"
    assert json.loads(gateway.run("ledger", "prune", "--yes", "--json").stdout) == {"removed": 0}
    assert "1 was erased." in gateway.run("ledger", "verify").stdout
    audited = json.loads(gateway.run("audit", "--event", "ledger", "--json").stdout)
    assert [entry["outcome"] for entry in audited] == ["erased", "pruned"]
