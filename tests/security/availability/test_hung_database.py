"""A gateway whose PostgreSQL server accepts connections but does not respond."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support import postgres
from tests.support.gateway import Gateway
from tests.support.polling import wait_until
from tests.support.requirements import missing

LOGIN_LIMIT_S = 30.0
"""A statement and a new connection end after 11 seconds; without limits, a login would wait for the server."""
PROBE_LIMIT_S = 6.0
"""A check ends after one second; without limits, the one of the database took ten."""


def test_log_ins_and_probes_end_while_the_database_hangs(new_gateway: Callable[..., Gateway]) -> None:
    """Log-ins get a 503 with Retry-After, and probes soon respond; logins succeed once the database responds again."""
    try:
        with postgres.running() as server:
            gateway = new_gateway(DATABASE_URL=f"{server.url}/postgres", MODEL__URL="stub://")
            assert gateway.log_in().status_code == 200
            with server.hung(), ThreadPoolExecutor(2) as callers:
                began = time.monotonic()
                log_ins = [callers.submit(gateway.log_in) for _ in range(2)]
                probes = [_time_probe(gateway) for _ in range(3)]
                responses = [log_in.result() for log_in in log_ins]
                waited_s = time.monotonic() - began
            assert [response.status_code for response in responses] == [503] * 2, [r.text for r in responses]
            assert all("Retry-After" in response.headers for response in responses)
            assert waited_s < LOGIN_LIMIT_S
            assert statistics.median(probes) < PROBE_LIMIT_S  # a single pause of a busy machine prolongs one of them
            wait_until(lambda: gateway.log_in().status_code == 200)
            assert gateway.stop() == 0
    except LookupError as error:
        missing(str(error))


def _time_probe(gateway: Gateway) -> float:
    began = time.monotonic()
    assert gateway.get("/readyz").status_code in (200, 503)
    return time.monotonic() - began
