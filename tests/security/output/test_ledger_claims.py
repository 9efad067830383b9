"""Threat T48: a running gateway names every entry in a checkpoint, whatever is changed in the unsigned columns."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until


def execute(gateway: Gateway, statement: str, *values: Any) -> list[Any]:
    """Change the database behind the gateway's back."""
    with closing(sqlite3.connect(gateway.database_path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def predict(gateway: Gateway, count: int) -> None:
    client = gateway.client()
    for _ in range(count):
        client.post("/v1/predictions", files={"file": FOREST.read_bytes()}).raise_for_status()


def test_entries_cut_off_are_found_although_claimed_was_set_high(new_gateway: Callable[..., Gateway]) -> None:
    """T48: after `claimed` was raised, workers that are killed or stopped name all entries; removing some is found."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    wait_until(lambda: gateway.log().count('"worker_ready"') == 2)
    predict(gateway, 2)
    heads = execute(gateway, "SELECT writer, seq, hash, checkpoint, key, signature FROM ledger_heads")
    execute(gateway, "UPDATE ledger_heads SET claimed = 1000000")
    predict(gateway, 4)
    for worker in gateway.workers():
        os.kill(worker, signal.SIGKILL)
    name = "atalaya_ledger_contradictions_total"
    wait_until(lambda: gateway.metric(name) > 0, message=gateway.log)
    wait_until(lambda: '"ledger_contradicted"' in gateway.log())
    wait_until(lambda: gateway.log().count('"worker_ready"') == 4)
    reported = gateway.log().count('"ledger_contradicted"')  # before the change, which a checkpoint may report at once
    execute(gateway, "UPDATE ledger_heads SET claimed = 1000000")
    predict(gateway, 3)
    assert gateway.stop() == 0
    assert gateway.log().count('"ledger_contradicted"') > reported
    intact = gateway.run("ledger", "verify")
    assert (intact.returncode, intact.stdout[:10]) == (0, "9 entries ")
    for writer, seq, *rest in heads:
        statement = "UPDATE ledger_heads SET seq = ?, hash = ?, checkpoint = ?, key = ?, signature = ?, claimed = ?"
        execute(gateway, f"{statement} WHERE writer = ?", seq, *rest, seq, writer)
        for table in ("entries", "payloads"):
            execute(gateway, f"DELETE FROM ledger_{table} WHERE writer = ? AND seq > ?", writer, seq)  # noqa: S608
    cut = gateway.run("ledger", "verify")
    assert (cut.returncode, cut.stdout) == (1, "")
    assert "missing" in cut.stderr or "the checkpoints disagree" in cut.stderr
