"""Sends the log over HTTP as JSON arrays, which Datadog, Logflare and Vector accept: for platforms without a collector.

The thread of the queue sends. While there are no lines it sends nothing and keeps no connection, so that a platform can
put the process to sleep.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import structlog

from monitoring.logs.destination_state import DestinationState
from monitoring.logs.line_queue import LineQueue, OnDrop, QueueLimits

# Datadog accepts at most 1000 lines and 5 MB at once.
LIMITS = QueueLimits(lines=10_000, bytes=4 << 20, batch_lines=500, batch_bytes=1 << 20, pause_s=2.0)
RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)
TIMEOUT_S = 10.0
FORK_WAIT_S = 1.0
# Statuses below 500 after which another attempt may succeed.
_TEMPORARY = frozenset({408, 425, 429})

log = structlog.get_logger("atalaya.logs")


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where lines are sent to. The URL and the headers may contain secrets."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    compress: bool = True


class LogSender(LineQueue):
    """A queue whose thread sends the lines to a receiver.

    After a temporary failure, the thread retries a batch after each of the delays in `retry_delays_s`. A batch that the
    receiver rejects, that fails every time, or that fails while the queue is drained, is dropped and counted. The
    beginning and the end of a failure are logged once each.
    """

    def __init__(
        self,
        receiver: Receiver,
        report: OnDrop,
        on_drop: OnDrop,
        *,
        limits: QueueLimits = LIMITS,
        retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._receiver = receiver
        self._retry_delays_s = retry_delays_s
        self._timeout_s = timeout_s
        # Create the TLS context before the fork, once for all workers, because loading certificates takes time. httpx
        # would otherwise create one in the thread, even for plain HTTP. A child that is forked at that moment would
        # inherit OpenSSL locks that none of its threads releases.
        self._tls = httpx.create_ssl_context(verify=receiver.url.startswith("https:"))
        super().__init__(report, on_drop, limits)
        # Import all modules now: a child cannot import a module that another thread was importing during the fork.
        self._make_client().close()

    @property
    def name(self) -> str:
        return "log-sender"

    def reset(self) -> None:
        super().reset()
        self._sending = threading.Lock()
        self._holds_sending = False
        self._client: httpx.Client | None = None  # opened by the thread, because a fork must not share its sockets
        self._state = DestinationState(_log_failure, _log_recovery)

    def acquire(self) -> None:
        """Also wait for a request to end, because a child must not inherit OpenSSL's locks while they are held.

        The wait is limited: a thread that waits for the receiver holds none of them.
        """
        self._holds_sending = self._sending.acquire(timeout=FORK_WAIT_S)
        super().acquire()

    def release(self) -> None:
        super().release()
        if self._holds_sending:
            self._sending.release()

    def write_batch(self, lines: Sequence[bytes]) -> None:
        body = b"[" + b",".join(line.rstrip(b"\n") for line in lines) + b"]"
        body = gzip.compress(body, compresslevel=6) if self._receiver.compress else body
        for delay_s in (*self._retry_delays_s, None):
            is_draining = self._draining.is_set()  # a drain that begins during the attempt causes another one
            problem, is_final = self._post(body)
            self._state.report(problem)
            if problem is None:
                return
            if is_final or delay_s is None or is_draining:
                break
            self.pause(delay_s)
        self.count_dropped(len(lines))

    def _post(self, body: bytes) -> tuple[str | None, bool]:
        """Return what went wrong, if anything, and whether another attempt would be useless."""
        try:
            with self._sending:
                self._client = self._client or self._make_client()
                with self._client.stream("POST", self._receiver.url, content=body) as response:
                    status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last for a host such as a..b
            return type(error).__name__, False  # its text may contain the URL
        if response.is_success:
            return None, False
        return f"HTTP {status}", status < 500 and status not in _TEMPORARY

    def _make_client(self) -> httpx.Client:
        headers = {"Content-Type": "application/json", "User-Agent": "atalaya", "Connection": "close"}
        if self._receiver.compress:
            headers["Content-Encoding"] = "gzip"
        return httpx.Client(
            verify=self._tls,
            headers={**headers, **self._receiver.headers},
            timeout=self._timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
            follow_redirects=False,
        )


def _log_failure(reason: str) -> None:
    log.warning("log_receiver_failing", reason=reason, policy="the lines are sent again, then dropped and counted")


def _log_recovery() -> None:
    log.info("log_receiver_restored")
