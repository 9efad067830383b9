"""Usage counters across restarts of the gateway."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST


@pytest.mark.usefixtures("within_one_month")
def test_counters_survive_a_restart(new_gateway: Callable[..., Gateway]) -> None:
    """Usage counters and a key's remaining quota are the same after a SIGKILL, and after a graceful restart."""
    gateway, image = new_gateway(MODEL__URL="stub://"), FOREST.read_bytes()
    key = gateway.client().post("/v1/keys", json={"name": "maps", "monthly_requests": 10}).json()["key"]

    def client_with_key() -> httpx.Client:
        return httpx.Client(base_url=gateway.base_url, headers={"X-API-Key": key}, timeout=TIMEOUT_S)

    def predict(client: httpx.Client) -> int:
        return client.post("/v1/predictions", files={"file": image}).status_code

    with client_with_key() as client, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(predict, [client] * 8)) == {200}
    gateway.kill()
    gateway.start()
    with client_with_key() as client:
        usage = client.get("/v1/usage").json()
        assert (usage["requests"], usage["key"]["requests"], usage["key"]["remaining"]["requests"]) == (8, 8, 2)
        assert [predict(client) for _ in range(3)] == [200, 200, 429]
    assert gateway.stop() == 0
    gateway.start()
    assert gateway.client().get("/v1/usage").json()["requests"] == 10
    assert gateway.stop() == 0
