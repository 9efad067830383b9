"""Threat T24 for quotas, on two running gateways that share a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST


@pytest.mark.usefixtures("within_one_month")
def test_a_quota_is_exact_over_two_gateways(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """T24: two processes on one database together allow exactly the quota of a key."""
    one, image = new_gateway(MODEL__URL="stub://", MODEL__QUEUE_SECONDS="60"), FOREST.read_bytes()
    two = one.replica(tmp_path / "replica")
    two.start()
    try:
        key = one.client().post("/v1/keys", json={"name": "maps", "monthly_requests": 25}).json()["key"]
        with ExitStack() as stack:
            clients = [
                stack.enter_context(
                    httpx.Client(base_url=gateway.base_url, headers={"X-API-Key": key}, timeout=TIMEOUT_S)
                )
                for gateway in (one, two)
            ]

            def predict(number: int) -> int:
                return clients[number % 2].post("/v1/predictions", files={"file": image}).status_code

            with ThreadPoolExecutor(8) as pool:
                assert Counter(pool.map(predict, range(40))) == {200: 25, 429: 15}
    finally:
        assert two.stop() == 0
