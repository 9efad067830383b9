"""Labels on a running gateway, from the command line to the metrics of several workers."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import wait_until


def test_labels_reach_the_metrics_of_all_workers(new_gateway: Callable[..., Gateway]) -> None:
    """`atalaya label` sends labels, `atalaya models quality` shows them, and the workers' metrics agree on them."""
    gateway = new_gateway(MODEL__URL="stub://", WEB_CONCURRENCY="2")
    client, token = gateway.client(), gateway.token()
    image = FOREST.read_bytes()
    predictions = [client.post("/v1/predictions", files={"file": image}).json() for _ in range(4)]
    # An entry is spooled first if the other worker holds the lock of the database for too long.
    wait_until(lambda: len(client.get("/v1/predictions").json()["entries"]) == 4)
    right = predictions[0]["label"]
    wrong = "river" if right != "river" else "beach"

    def label(number: int, name: str) -> tuple[int, str]:
        sent = gateway.run("label", predictions[number]["id"], name, "--url", gateway.base_url, "--token", token)
        return sent.returncode, sent.stdout + sent.stderr

    assert label(0, right) == (0, f"{predictions[0]['id']} is labelled {right}. The prediction was correct.\n")
    assert label(1, wrong)[1].endswith(f"is labelled {wrong}. The prediction was wrong: it was {right}.\n")
    status, error = label(2, "volcano")
    assert (status, error[:54]) == (1, "error: The model of this prediction has no class 'volc")
    shown = gateway.run("models", "quality", "stub", "--json")
    (version,) = json.loads(shown.stdout)["versions"]
    assert (version["predictions"], version["labelled"], version["accuracy"]["value"]) == (4, 2, 0.5)
    wait_until(lambda: gateway.metric('atalaya_live_accuracy{model="stub-v1.0"}') == 0.5)
    wait_until(lambda: gateway.metric('atalaya_estimated_accuracy{model="stub-v1.0"}') > 0)
    counts = [gateway.metric(f'atalaya_labels_total{{correct="{c}",model="stub-v1.0"}}') for c in ("true", "false")]
    assert counts == [1, 1]
