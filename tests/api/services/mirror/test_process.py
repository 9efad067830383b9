"""What the gateway does with the output of the process that pulls."""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from api.services.mirror.process import Reports, run_puller
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
