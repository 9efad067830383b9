"""Line 24 of the security list for quotas, on two running gateways that share a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

FOREST = Path(__file__).parents[2] / "samples" / "yellowstone_forest.jpg"


def test_line_24_a_quota_is_exact_over_two_gateways(new_gateway: Callable[..., Any], tmp_path: Path) -> None:
    """Two processes on one database grant together exactly what the quota has room for."""
    one = new_gateway()
    folder = tmp_path / "other"
    folder.mkdir()
    ports = {"PORT": one.free_port(), "METRICS_PORT": one.free_port(), "AUTH__ISSUER": one.base_url}
    two = replace(one, folder=folder, environment=one.environment | ports, process=None, clients=[])
    two.start()
    try:
        body = {"name": "maps", "monthly_requests": 25}
        headers = {"X-API-Key": one.client().post("/v1/keys", json=body).json()["key"]}
        clients, image = [one.client(), two.client()], FOREST.read_bytes()

        def predict(index: int) -> int:
            sent = clients[index % 2].build_request("POST", "/v1/predictions", files={"file": image}, headers=headers)
            del sent.headers["Authorization"]
            return clients[index % 2].send(sent).status_code

        with ThreadPoolExecutor(8) as pool:
            assert Counter(pool.map(predict, range(40))) == {200: 25, 429: 15}
    finally:
        assert two.stop() == 0
