"""Line 26 on a running gateway whose capacity is known: one prediction in 0.2 s, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.load import Load, drive, request_of

PASSWORD = "correct horse battery"
FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"


def test_line_26_a_crowd_is_refused_and_who_is_let_in_stays_quick(new_gateway: Callable[..., Any]) -> None:
    """At ten times capacity the admitted wait little, the rest get 503 with Retry-After, and /livez answers."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=200", MODEL__WORKERS="1")
    client = gateway.client()
    client.headers["Content-Type"] = "image/jpeg"
    request = request_of(client.headers["Authorization"].removeprefix("Bearer "), FOREST)

    def load(connections: int, seconds: float, rate: float) -> Load:
        return asyncio.run(drive(int(gateway.environment["PORT"]), request, connections, seconds, rate=rate))

    alone = load(1, 2, 5)
    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(load, 20, 5, 50)
        time.sleep(1.5)
        answers = [client.post("/v1/predictions", content=FOREST.read_bytes()) for _ in range(10)]
        assert client.get("/livez").elapsed.total_seconds() < 0.2  # a prediction's time: it waits for none
        crowded = crowd.result()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.json()["code"] for answer in refused} == {"overloaded"}
    # About nine of ten are turned away: whoever comes back a second later would be, too.
    waits = [int(answer.headers["Retry-After"]) for answer in refused]
    assert min(waits) >= 1
    assert 2 <= max(waits) <= 31
    assert set(crowded.statuses) == {200, 503}
    assert crowded.cut == 0
    assert crowded.statuses[200] > 12  # of 25 that can be had
    assert crowded.percentile_ms(99) < 3 * alone.percentile_ms(99)


def test_line_26_who_sends_much_does_not_starve_who_sends_little(new_gateway: Callable[..., Any]) -> None:
    """While one caller asks for ten times what can be answered, nearly every request of another is answered."""
    gateway = new_gateway(MODEL__URL="stub://?latency_ms=200", MODEL__WORKERS="1")
    added = gateway.run("users", "add", "ben", "--role", "client", "--password-stdin", stdin=PASSWORD)
    assert added.returncode == 0, added.stderr
    request, few = request_of(gateway.token("ana"), FOREST), gateway.client("ben")
    few.headers["Content-Type"] = "image/jpeg"
    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(asyncio.run, drive(int(gateway.environment["PORT"]), request, 20, 7, rate=50))
        time.sleep(1.5)
        answers = [few.post("/v1/predictions", content=FOREST.read_bytes()).status_code for _ in range(8)]
        statuses = crowd.result().statuses
    assert answers.count(200) >= 7
    assert statuses[503] > statuses[200] > 0
