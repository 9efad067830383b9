"""What the gateway does with the output of the process that pulls."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.services.mirror.__main__ import pull
from api.services.mirror.process import Reports, run_puller
from model.registry.errors import InvalidName
from model.registry.mlflow.mirror import Mirror, Pull
from monitoring.metrics import Metrics

WRITES_MUCH = """
import sys
for number in range(5000):
    print("warning", number, "x" * 600, file=sys.stderr)
print("y" * 200_000, file=sys.stderr)
print('{"moved": {}}', flush=True)
sys.exit("error: the last word")
"""


async def test_a_process_that_writes_many_errors_does_not_wait() -> None:
    """More than a pipe holds is read: a few short lines of it are logged, and the last one is why the process ended."""
    registry = CollectorRegistry()
    with capture_logs() as logs:
        async with asyncio.timeout(120):
            ended = await run_puller(Reports(Metrics(registry)), [sys.executable, "-c", WRITES_MUCH])
    assert ended == "error: the last word"
    assert registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": "unchanged"}) == 1
    lines = [entry["text"] for entry in logs if entry["event"] == "registry_puller_output"]
    assert 20 <= len(lines) <= 40  # the clock may pass from one minute to the next
    assert max(map(len, lines)) == 500


def test_only_aliases_that_the_gateway_serves_count_as_failures() -> None:
    """Another alias that cannot be followed is logged once, and the look is no failure."""
    registry = CollectorRegistry()
    refused = {"_prod": {"code": "invalid_name", "reason": "'_prod' is not a name."}}
    reports = Reports(Metrics(registry))
    with capture_logs() as logs:
        for _ in range(2):
            reports.on_look({"moved": {}, "refused": refused})
        reports.on_look({"moved": {}, "refused": {}, "code": "artefact_unsigned", "reason": "It is not signed."})
    assert [(entry["event"], entry["code"]) for entry in logs] == [
        ("registry_alias_not_pulled", "invalid_name"),
        ("registry_not_pulled", "artefact_unsigned"),
    ]
    looks = {
        outcome: registry.get_sample_value("atalaya_registry_pulls_total", {"outcome": outcome})
        for outcome in ("unchanged", "failed")
    }
    assert looks == {"unchanged": 2, "failed": 1}


@pytest.mark.parametrize(("served", "codes"), [(["production"], (None, ["_prod"])), (["_prod"], ("invalid_name", []))])
def test_a_look_tells_served_aliases_from_others(served: list[str], codes: tuple[str | None, list[str]]) -> None:
    """The problem of a look is that of an alias which the gateway serves."""
    refused = {"_prod": InvalidName("'_prod' is not a name.")}
    mirror = SimpleNamespace(pull=lambda: Pull({}, refused))
    look = pull(cast(Mirror, mirror), served)
    assert (look.get("code"), list(look["refused"])) == codes
