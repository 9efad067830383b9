"""A running gateway that cannot write predictions to the database of its ledger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import httpx

from tests.support.certificates import public_trust
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until

JPEG = {"Content-Type": "image/jpeg"}


def test_a_locked_database_and_a_full_spool(new_gateway: Callable[..., Gateway]) -> None:
    """A locked database causes entries to be spooled, a full spool a 503 with Retry-After, and both recover."""
    gateway = new_gateway(MODEL__URL="stub://", LEDGER__SPOOL_MEGABYTES="1")
    client, image = gateway.client(), FOREST.read_bytes()

    def predict() -> httpx.Response:
        return client.post("/v1/predictions", content=image, headers=JPEG)

    def readiness() -> tuple[int, str]:
        response = client.get("/readyz")
        return response.status_code, response.json()["checks"]["ledger"]

    def states() -> set[str]:
        lines = httpx.get(gateway.metrics_url, timeout=TIMEOUT_S, verify=public_trust()).text.splitlines()
        return {line for line in lines if line.startswith("atalaya_ledger_state{") and line.endswith(" 1.0")}

    succeeded = [predict()]
    assert readiness() == (200, "ok")
    locked = sqlite3.connect(gateway.database_path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    succeeded.append(predict())
    assert readiness() == (200, "spooling")
    assert states() == {'atalaya_ledger_state{state="spooling"} 1.0'}
    while (last := predict()).status_code == 200:
        succeeded.append(last)
        assert len(succeeded) < 2000
    assert (last.status_code, last.json()["code"]) == (503, "ledger_full")
    assert int(last.headers["Retry-After"]) >= 1
    assert readiness() == (503, "LedgerFull")
    assert states() == {'atalaya_ledger_state{state="full"} 1.0'}
    locked.close()
    wait_until(lambda: readiness() == (200, "ok"))
    succeeded.append(predict())
    assert {response.status_code for response in succeeded} == {200}
    gateway.stop()
    with closing(sqlite3.connect(gateway.database_path)) as connection:
        recorded = [row[0] for row in connection.execute("SELECT id FROM ledger_payloads WHERE status = 200")]
    assert sorted(recorded) == [response.json()["id"] for response in succeeded]
    events = [line.get("event.name") for line in map(json.loads, gateway.log().splitlines())]
    changes = [event for event in events if event in {"ledger_writing", "ledger_spooling", "ledger_full"}]
    assert list(dict.fromkeys(changes)) == ["ledger_spooling", "ledger_full", "ledger_writing"]
    assert gateway.run("ledger", "verify").returncode == 0
