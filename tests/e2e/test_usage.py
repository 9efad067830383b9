"""Counters of use, as they outlive the process that counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"


def test_counters_survive_a_restart(new_gateway: Callable[..., Any]) -> None:
    """What was counted is there after a restart, after a killed process too, and the quota goes on from there."""
    gateway, image = new_gateway(), FOREST.read_bytes()

    def predict(client: httpx.Client) -> int:
        return client.post("/v1/predictions", files={"file": image}).status_code

    with httpx.Client(base_url=gateway.base_url, timeout=30) as client:
        body = {"name": "maps", "monthly_requests": 10}
        made = gateway.client().post("/v1/keys", json=body).json()
        client.headers["X-API-Key"] = made["key"]
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(predict, [client] * 8)) == {200}
        gateway.process.kill()
        gateway.process.wait()
    gateway.start()
    with httpx.Client(base_url=gateway.base_url, headers={"X-API-Key": made["key"]}, timeout=30) as client:
        found = client.get("/v1/usage").json()
        assert (found["requests"], found["key"]["requests"], found["key"]["remaining"]["requests"]) == (8, 8, 2)
        assert [predict(client) for _ in range(3)] == [200, 200, 429]
    assert gateway.stop() == 0
    gateway.start()
    found = gateway.client().get("/v1/usage").json()
    assert found["requests"] == 10
    assert gateway.stop() == 0
