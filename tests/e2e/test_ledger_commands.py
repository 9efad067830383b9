"""`atalaya ledger` beside a running gateway with the shipped model."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOREST = ROOT / "samples" / "yellowstone_forest.jpg"
SHRUBLAND = ROOT / "samples" / "soaproot_shrubland.jpg"


@pytest.fixture
def gateway(new_gateway: Callable[..., Any]) -> Any:
    return new_gateway()


def predict(gateway: Any, image: Path = FOREST, user: str = "ana") -> str:
    answer = gateway.client(user).post("/v1/predictions", files={"file": image.read_bytes()})
    assert answer.status_code == 200, answer.text
    prediction_id: str = answer.json()["id"]
    return prediction_id


def change(gateway: Any, statement: str) -> None:
    connection = sqlite3.connect(gateway.folder / "gateway.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_replay_reproduces_every_bit(gateway: Any) -> None:
    """A prediction comes out the same to the last bit from the file that was sent; another file is told apart."""
    prediction_id = predict(gateway)
    done = gateway.run("ledger", "replay", prediction_id, str(FOREST), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "id": prediction_id,
        "identical": True,
        "differences": [],
        "largest_difference": 0.0,
    }
    told = gateway.run("ledger", "replay", prediction_id, str(FOREST))
    assert told.stdout.startswith("Identical, bit for bit: ")
    other = gateway.run("ledger", "replay", prediction_id, str(SHRUBLAND))
    assert (other.returncode, other.stdout) == (1, "")
    assert "another image" in other.stderr
    unknown = gateway.run("ledger", "replay", prediction_id[:-4] + "0000", str(FOREST))
    assert unknown.returncode == 1


def test_replay_says_what_differs(gateway: Any) -> None:
    """A record that was changed, a model that is not there and a refused request are each named."""
    prediction_id = predict(gateway)
    gateway.environment["MODEL__URL"] = "stub://"
    missing = gateway.run("ledger", "replay", prediction_id, str(FOREST))
    assert missing.returncode == 1
    assert "No folder holds efficientnetb0-v1.0" in missing.stderr
    folder = str(ROOT / "artifacts" / "efficientnetb0-v1.0")
    assert gateway.run("ledger", "replay", prediction_id, str(FOREST), "--model", folder).returncode == 0
    change(gateway, "UPDATE ledger_payloads SET document = replace(document, 'forest', 'desert')")
    changed = gateway.run("ledger", "replay", prediction_id, str(FOREST), "--model", folder)
    assert changed.returncode == 1
    assert "was changed" in changed.stderr


def test_the_ledger_verifies(gateway: Any) -> None:
    """A running gateway's ledger verifies, by the public key alone, and an anchor is met again later."""
    predict(gateway)
    key = gateway.run("ledger", "key").stdout.strip()
    del gateway.environment["LEDGER__SIGNING_KEY"]
    told = gateway.run("ledger", "verify", "--public-key", key)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("1 entries of 1 writers, unchanged.")
    anchor = told.stdout.split()[-1]
    predict(gateway)
    again = gateway.run("ledger", "verify", "--public-key", key, "--anchor", anchor, "--json")
    assert json.loads(again.stdout)["ok"] is True
    forged = gateway.run("ledger", "verify", "--public-key", key, "--anchor", f"1:{'f' * 64}")
    assert forged.returncode == 1
    assert "Checkpoint 1, which was noted earlier" in forged.stderr
    unknown = gateway.run("ledger", "verify", "--public-key", "A" * 43 + "=")
    assert "unknown key" in unknown.stderr
    change(gateway, "DELETE FROM ledger_payloads WHERE seq = 2")
    changed = gateway.run("ledger", "verify", "--public-key", key)
    assert (changed.returncode, changed.stdout) == (1, "")
    assert "The payload of entry 2 of " in changed.stderr


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_export_verifies(gateway: Any, form: str) -> None:
    """A whole export and one of a single user verify; one that was changed does not. Only its owner can read it."""
    for user in ("ana", "ana", "olga"):
        if user == "olga":
            gateway.run("users", "add", "bob", "--role", "client", "--password-stdin", stdin="correct horse battery")
        predict(gateway, user="bob" if user == "olga" else user)
    path = gateway.folder / f"export.{form}"
    done = gateway.run("ledger", "export", "--format", form, str(path), "--json")
    assert json.loads(done.stdout) == {"entries": 3, "payloads": 3}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert gateway.run("ledger", "verify", str(path)).returncode == 0
    one = gateway.run("ledger", "export", "--format", form, "--principal", "bob", str(path), "--json")
    assert json.loads(one.stdout) == {"entries": 3, "payloads": 1}
    verified = gateway.run("ledger", "verify", str(path))
    assert verified.returncode == 0, verified.stderr
    assert "2 are withheld: this export proves what it holds" in verified.stdout
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert gateway.run("ledger", "verify", str(path)).returncode == 1


def test_a_window_of_time(gateway: Any) -> None:
    """An export of a window begins and ends inside of the chains, and verifies; a line less does not."""
    times = []
    for _ in range(4):
        predict(gateway)
        times.append(gateway.client().get("/v1/predictions?limit=1").json()["entries"][0]["at"])
    path = gateway.folder / "window.jsonl"
    done = gateway.run("ledger", "export", "--since", times[1], "--until", times[3], str(path), "--json")
    assert json.loads(done.stdout)["payloads"] == 2
    verified = gateway.run("ledger", "verify", str(path))
    assert verified.returncode == 0, verified.stderr
    lines = path.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["header", "cut", "entry", "entry", "entry", "head"]
    for gone in range(1, len(lines)):
        path.write_text("\n".join(lines[:gone] + lines[gone + 1 :]) + "\n")
        assert gateway.run("ledger", "verify", str(path)).returncode == 1, lines[gone]


def test_upkeep(gateway: Any) -> None:
    """Erasing one user and pruning are acts on record; the ledger verifies after both, beside a running gateway."""
    prediction_id = predict(gateway)
    assert gateway.run("ledger", "erase", "--principal", "ana", "--yes").stdout == "1 predictions of ana forgotten.\n"
    assert gateway.client().get(f"/v1/predictions/{prediction_id}").status_code == 404
    predict(gateway)
    assert "1 were erased." in gateway.run("ledger", "verify").stdout
    gateway.environment["LEDGER__KEEP_DAYS"] = "1"
    assert json.loads(gateway.run("ledger", "prune", "--json").stdout) == {"removed": 0}
    noted = json.loads(gateway.run("audit", "--event", "ledger", "--json").stdout)
    assert [entry["outcome"] for entry in noted] == ["erased", "pruned"]
