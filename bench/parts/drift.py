"""The cost of watching drift: the memory of a gateway with 1,000 callers, and the time for each prediction.

`python -m bench.parts.drift`. The throughput is compared with that of the previous release by `make compare`.
"""

from __future__ import annotations

import time

import numpy as np

from bench.gateways import measured_gateway
from bench.targets import Target, format_targets
from model.imaging.statistics import measure_pixels
from monitoring.logs.commands import warnings_on_stderr
from tests.api.commands.models.drifting import build_predictions, record
from tests.support.gateway import Gateway
from tests.support.linux.processes import cpu_seconds
from tests.support.polling import wait_until

CALLERS, PREDICTIONS = 1000, 20
_WAIT_S = 40  # more than two updates in the background


def fill_ledger(gateway: Gateway) -> None:
    """Record predictions of many callers, as another replica would."""
    for number in range(PREDICTIONS):
        facts = build_predictions("test", CALLERS)
        for caller, each in enumerate(facts):
            each["principal"] = f"caller {caller}"
        record(f"sqlite:///{gateway.database_path}", facts, minutes_ago=PREDICTIONS - number)


def measure_gateway(drift_callers: int) -> tuple[float, float]:
    """Return the memory in MB once all predictions are added to the sums, and the processor time for it in seconds."""
    with measured_gateway(MONITORING__DRIFT_CALLERS=str(drift_callers)) as gateway:
        with warnings_on_stderr():
            fill_ledger(gateway)
        began = cpu_seconds(gateway.pid)
        is_added = 'atalaya_estimated_accuracy{model="efficientnetb0-v1.1"}'
        wait_until(lambda: gateway.metric(is_added) > 0, within_s=1200)  # in the background, it pauses most of the time
        used = cpu_seconds(gateway.pid) - began
        if drift_callers:
            client = gateway.client("olga")
            (model,) = client.get("/v1/drift").json()["models"]
            if model["callers"] != CALLERS:
                raise RuntimeError(f"only {model['callers']} callers are watched")
        time.sleep(_WAIT_S)
        return gateway.resident_bytes() / 1e6, used


def measure_statistics_us() -> float:
    """Return the median time to measure brightness and sharpness, in microseconds."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    durations = []
    for _ in range(2000):
        started = time.perf_counter()
        measure_pixels(pixels)
        durations.append(time.perf_counter() - started)
    return float(np.median(durations)) * 1e6


def main() -> None:
    (without_mb, without_s), (with_mb, with_s) = measure_gateway(0), measure_gateway(10_000)
    added_us = (with_s - without_s) / (CALLERS * PREDICTIONS) * 1e6
    print(f"drift of {CALLERS} callers with {PREDICTIONS} predictions each: {without_mb:.1f} MB and {with_mb:.1f} MB")
    print(
        *format_targets(
            [
                Target("memory for drift", with_mb - without_mb, 8, "MB"),
                Target("brightness and sharpness", measure_statistics_us(), 150, "us"),
                Target("update, for each prediction", added_us, 200, "us"),
            ]
        ),
        sep="\n",
    )


if __name__ == "__main__":
    main()
