"""The engines that may get requests: chosen by fewest requests in flight, ejected when they fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from model.backends.oip.address import Host
from model.backends.oip.connections import Connections
from model.backends.oip.errors import EngineUnavailable
from model.backends.oip.metadata import EngineModel
from model.errors import DeadlineExceeded

CHECK_INTERVAL_S = 5.0
"""Time between two checks of an endpoint that works."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0


class Endpoint(Struct, eq=False):
    """One engine. `model` is the result of the last check. While it is None, the engine gets no requests.

    `label` is its address and port, `host` the host with that address. `in_flight` counts requests. `errors`
    counts requests without a usable response and `failures` ejections, both since the last usable response. `problem`
    is the reason for the last ejection. `check_at` is when its next check is due, in seconds of time.monotonic().
    """

    label: str
    host: Host
    connections: Connections
    model: EngineModel | None = None
    in_flight: int = 0
    last_used: int = 0
    errors: int = 0
    failures: int = 0
    problem: str = ""
    check_at: float = 0.0


class Endpoints:
    """The endpoints, with at most `limit` requests in flight on each. Thread-safe.

    With `keeps_last`, the last working endpoint is not ejected for errors.
    """

    def __init__(self, limit: int, *, keeps_last: bool) -> None:
        self._limit = limit
        self._keeps_last = keeps_last
        self._endpoints: dict[str, Endpoint] = {}
        self._freed = threading.Condition()
        self._uses = 0
        self._is_closed = False

    @property
    def all(self) -> list[Endpoint]:
        with self._freed:
            return list(self._endpoints.values())

    @property
    def models(self) -> list[EngineModel]:
        """The model on each endpoint that works, as the checks have read it."""
        return [endpoint.model for endpoint in self.all if endpoint.model is not None]

    @contextmanager
    def use(self, until: float, avoided: Endpoint | None = None) -> Iterator[tuple[Endpoint, EngineModel]]:
        """Use the endpoint with the fewest requests in flight; on a tie, the least recently used one.

        `avoided` is used only if no other endpoint works. While all are at their limit, this waits until `until`, a
        time of time.monotonic(). Raises EngineUnavailable, DeadlineExceeded.
        """
        endpoint, model = self._acquire(until, avoided)
        try:
            yield endpoint, model
        finally:
            with self._freed:
                endpoint.in_flight -= 1
                self._freed.notify_all()  # the longest-waiting thread may have to avoid this endpoint

    def admit(self, endpoint: Endpoint, model: EngineModel) -> bool:
        """Send requests to an endpoint that has passed its check. Returns whether its state has changed.

        Only a usable response resets the counts of errors and ejections, because an engine can pass its checks and
        still fail every request. So the first error after an ejection ejects it again, for longer.
        """
        with self._freed:
            is_new = endpoint.model != model and self._uses_endpoint(endpoint)
            endpoint.model = model
            endpoint.check_at = time.monotonic() + CHECK_INTERVAL_S
            self._freed.notify_all()
        return is_new

    def eject(self, endpoint: Endpoint, reason: str, *, unless_last: bool = False) -> bool:
        """Send no more requests to the endpoint until a check succeeds. Returns whether its state has changed.

        The next check comes after FIRST_BACKOFF_S; the delay doubles with each consecutive ejection.
        """
        with self._freed:
            working = sum(other.model is not None for other in self._endpoints.values())
            if unless_last and self._keeps_last and endpoint.model is not None and working == 1:
                endpoint.check_at = time.monotonic() + FIRST_BACKOFF_S
                return False
            changes = self._uses_endpoint(endpoint) and (endpoint.model is not None or not endpoint.failures)
            endpoint.model, endpoint.problem = None, reason
            backoff_s = min(FIRST_BACKOFF_S * 2**endpoint.failures, MAX_BACKOFF_S)
            endpoint.failures = min(endpoint.failures + 1, 10)
            endpoint.check_at = time.monotonic() + backoff_s
            self._freed.notify_all()
        endpoint.connections.drop_idle()
        return changes

    def replace(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Use these endpoints. An endpoint whose label is already in use keeps its state. Returns the removed ones.

        After `close` this does nothing.
        """
        with self._freed:
            if self._is_closed:
                return []
            current = {each.label: self._endpoints.get(each.label, each) for each in endpoints}
            removed = [each for label, each in self._endpoints.items() if label not in current]
            self._endpoints = current
            self._freed.notify_all()
        for endpoint in removed:
            endpoint.connections.close()
        return removed

    def close(self) -> None:
        """Close the connections to all endpoints, and use no endpoint from now on."""
        with self._freed:
            self._is_closed = True
            removed, self._endpoints = self._endpoints, {}
            self._freed.notify_all()
        for endpoint in removed.values():
            endpoint.connections.close()

    def _uses_endpoint(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint has not been replaced or removed."""
        return self._endpoints.get(endpoint.label) is endpoint

    def _acquire(self, until: float, avoided: Endpoint | None) -> tuple[Endpoint, EngineModel]:
        with self._freed:
            while True:
                working = [(each, each.model) for each in self._endpoints.values() if each.model is not None]
                others = [pair for pair in working if pair[0] is not avoided] or working
                if not others:
                    raise EngineUnavailable
                chosen, model = min(others, key=lambda pair: (pair[0].in_flight, pair[0].last_used))
                if chosen.in_flight < self._limit:
                    self._uses += 1
                    chosen.in_flight += 1
                    chosen.last_used = self._uses
                    return chosen, model
                left = until - time.monotonic()
                if left <= 0:
                    raise DeadlineExceeded
                self._freed.wait(left)
