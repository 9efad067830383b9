"""What callers, operators and logs are told while nothing can be recorded, on a running gateway."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"
JPEG = {"Content-Type": "image/jpeg"}


def test_database_locked_and_spool_full(new_gateway: Callable[..., Any]) -> None:
    """Answers go on into the spool; once that is full 503 says when to try again; both show, and both heal."""
    gateway = new_gateway(MODEL__URL="stub://", LEDGER__SPOOL_MEGABYTES="1")
    client, image = gateway.client(), FOREST.read_bytes()

    def predict() -> httpx.Response:
        return client.post("/v1/predictions", content=image, headers=JPEG)

    def readiness() -> tuple[int, str]:
        answer = client.get("/readyz")
        return answer.status_code, answer.json()["checks"]["ledger"]

    def states() -> set[str]:
        lines = httpx.get(gateway.metrics_url).text.splitlines()
        return {line for line in lines if line.startswith("atalaya_ledger_state{") and line.endswith(" 1.0")}

    answered = [predict()]
    assert readiness() == (200, "ok")
    locked = sqlite3.connect(gateway.folder / "gateway.db", isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    answered.append(predict())
    assert readiness() == (200, "spooling")
    assert states() == {'atalaya_ledger_state{state="spooling"} 1.0'}
    while (last := predict()).status_code == 200:
        answered.append(last)
        assert len(answered) < 2000
    assert (last.status_code, last.json()["code"]) == (503, "ledger_full")
    assert int(last.headers["Retry-After"]) >= 1
    assert readiness() == (503, "LedgerFull")
    assert states() == {'atalaya_ledger_state{state="full"} 1.0'}
    locked.close()
    deadline = time.monotonic() + 20
    while readiness() != (200, "ok"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answered.append(predict())
    assert {answer.status_code for answer in answered} == {200}
    gateway.stop()
    with sqlite3.connect(gateway.folder / "gateway.db") as connection:
        recorded = [row[0] for row in connection.execute("SELECT id FROM ledger_payloads WHERE status = 200")]
    assert sorted(recorded) == [answer.json()["id"] for answer in answered]
    events = [line["event"] for line in map(json.loads, gateway.log().splitlines())]
    told = [event for event in events if event in {"ledger_writing", "ledger_spooling", "ledger_full"}]
    assert list(dict.fromkeys(told)) == ["ledger_spooling", "ledger_full", "ledger_writing"]
    assert gateway.run("ledger", "verify").returncode == 0
