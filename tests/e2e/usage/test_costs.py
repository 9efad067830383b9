"""The costs of recorded traffic, compared with the use of the gateway's process as measured from outside."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.gateway import Gateway
from tests.support.linux.processes import cpu_seconds, proportional_bytes

SENT = {"ana": (30, 256), "bob": (6, 2400)}
"""How many images each caller sends, and how many pixels wide they are."""


def make_image(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, width), 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def read_predictions(gateway: Gateway, path: Path) -> list[dict[str, Any]]:
    """Return the facts of all predictions from an export of the ledger."""
    assert gateway.run("ledger", "export", str(path)).returncode == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    documents = [json.loads(record["payload"]["document"]) for record in records if record.get("payload")]
    return [facts for facts in documents if facts.get("output")]


@pytest.mark.usefixtures("within_one_month")
def test_costs_of_recorded_traffic(new_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """Costs by caller are within 10 % of the formula, applied to the process's use and the exported ledger."""
    gateway = new_gateway(COST__VCPU_HOUR="3600", COST__GB_HOUR="0", COST__SENT_GB="0")
    gateway.add_user("bob")
    ready_at = time.time()
    for caller, (number, width) in SENT.items():
        client, image = gateway.client(caller), make_image(width)
        for _ in range(number):
            client.post("/v1/predictions", files={"file": image}).raise_for_status()
    used_s, memory_gb = cpu_seconds(gateway.pid), proportional_bytes(gateway.pid) / 1e9
    served_s = time.time() - ready_at
    usage = gateway.client().get("/v1/usage").json()
    assert gateway.stop() == 0
    printed = gateway.run("cost", "--json")
    assert printed.returncode == 0, printed.stderr
    found = json.loads(printed.stdout)

    assert found["resources"]["processor_s"] == pytest.approx(used_s, rel=0.1)
    assert found["resources"]["memory_gb_s"] > 0.9 * memory_gb * served_s
    assert found["measured_share"] == 1
    costs = {each["name"]: each["cost"]["total"] for each in found["callers"]}
    subjects = {each["caller"]: each["name"] for each in found["callers"]}
    busy_s = dict.fromkeys(SENT, 0.0)
    for facts in read_predictions(gateway, tmp_path / "ledger.jsonl"):
        timing = facts["timing_us"]
        busy_s[subjects[facts["principal"]]] += (timing["decode"] + timing["infer"]) / 1e6
    processor_s = found["resources"]["processor_s"]  # not `used_s`: the difference may be large compared with the rest
    computing = min(1.0, processor_s / sum(busy_s.values()))  # on a busy machine, threads wait for a processor
    rest_s = processor_s - computing * sum(busy_s.values())
    predictions = sum(number for number, _ in SENT.values())
    for caller, (number, _) in SENT.items():
        assert costs[caller] == pytest.approx(computing * busy_s[caller] + rest_s * number / predictions, rel=0.1)
    assert usage["cost"]["currency"] == "USD"
