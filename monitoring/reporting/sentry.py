"""Reports unexpected errors to Sentry, without credentials and personal data."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from monitoring.redaction import redact_tree

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

MAX_REPORTS_PER_MINUTE = 30
CLOSE_LIMIT_S = 2.0
_FLUSH_TIMEOUT_S = 1.0
_SHORT_SHA = 12

# What an event may contain: no request, server name, breadcrumbs, extra data, contexts or list of modules.
_ALLOWED_KEYS = frozenset(
    {"event_id", "timestamp", "level", "platform", "exception", "tags", "user", "environment", "release", "sdk"}
)
_ALLOWED_USER_KEYS = frozenset({"id"})

_log = logging.getLogger(__name__)


class ErrorReporter(Protocol):
    """Reports unexpected errors. No method raises, and `capture` does not wait for the network."""

    def capture(self, error: BaseException, tags: Mapping[str, str], principal: str | None = None) -> None:
        """Report an error. `principal`, the subject that caused it, is only sent as a pseudonym."""

    def flush(self) -> None:
        """Wait for queued reports, for at most a second: a process must not fork while a thread sends them."""

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        """Send queued reports, for at most `limit_s` seconds, and never for more than CLOSE_LIMIT_S."""


class NullReporter:
    """Reports nothing, for a gateway without a DSN."""

    def capture(self, error: BaseException, tags: Mapping[str, str], principal: str | None = None) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        pass


def name_release(version: str, commit: str | None) -> str:
    """Return the name of a release of this program, with the commit as build metadata (semver.org, item 10)."""
    return f"atalaya@{version}+{commit[:_SHORT_SHA]}" if commit else f"atalaya@{version}"


def open_reporter(
    dsn: str | None,
    *,
    environment: str,
    release: str,
    share: float = 1.0,
    on_dropped: Callable[[], object] = lambda: None,
) -> ErrorReporter:
    """Open a reporter for the Sentry project at `dsn`. Without a DSN sentry_sdk is not imported.

    `share`, in [0, 1], of the errors is reported, and no more than MAX_REPORTS_PER_MINUTE. `on_dropped` is called, from
    any thread, for each further report and for each that could not be sent. Raises ValueError for a malformed DSN.
    """
    return _SentryReporter(dsn, environment, release, share, on_dropped) if dsn else NullReporter()


class _SentryReporter:
    """Uses its own client instead of `sentry_sdk.init`, which sets process-wide state and patches libraries.

    Events have no scope: only the error, its tags and the pseudonym of the principal are sent, and no transactions.
    """

    def __init__(
        self, dsn: str, environment: str, release: str, share: float, on_dropped: Callable[[], object]
    ) -> None:
        import sentry_sdk
        from sentry_sdk.transport import HttpTransport

        class Transport(HttpTransport):
            def on_dropped_event(self, _reason: str) -> None:
                on_dropped()

        self._key = dsn.encode()
        self._on_dropped = on_dropped
        self._cap = _MinuteCap(MAX_REPORTS_PER_MINUTE)
        self._client = sentry_sdk.Client(
            dsn=dsn,
            environment=environment,
            release=release,
            sample_rate=share,
            transport=Transport,
            before_send=scrub_event,
            before_send_transaction=scrub_event,
            before_breadcrumb=lambda *_: None,
            default_integrations=False,
            include_local_variables=False,
            max_request_body_size="never",
            send_client_reports=False,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            spotlight=False,
            debug=False,
        )

    def capture(self, error: BaseException, tags: Mapping[str, str], principal: str | None = None) -> None:
        from sentry_sdk.utils import event_from_exception

        if not self._cap.admit():
            self._on_dropped()
            return
        try:
            event, hint = event_from_exception(error, client_options=self._client.options)
            event["tags"] = dict(tags)
            if principal is not None:
                event["user"] = {"id": self._make_pseudonym(principal)}
            self._client.capture_event(event, hint=hint)
        except Exception:  # reporting an error must not cause a second one
            _log.warning("An error could not be reported to Sentry.", exc_info=True)

    def flush(self) -> None:
        with suppress(Exception):
            self._client.flush(timeout=_FLUSH_TIMEOUT_S)

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        try:
            self._client.close(timeout=max(0.0, min(limit_s, CLOSE_LIMIT_S)))
        except Exception:
            _log.warning("The Sentry client did not close cleanly.", exc_info=True)

    def _make_pseudonym(self, principal: str) -> str:
        """Return an id that is the same in all processes. Sentry has its key, the DSN, and could confirm a guess."""
        return hmac.digest(self._key, principal.encode(), "sha256").hex()[:16]


class _MinuteCap:
    """Admits `limit` reports in each minute of a monotonic clock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = 0
        self._count = 0

    def admit(self) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        return self._count <= self._limit


def scrub_event(event: Event, _hint: Hint) -> Event:
    """Return the part of an event or transaction that may be sent: allowed members, redacted, and the pseudonym."""
    allowed: dict[str, Any] = {key: value for key, value in event.items() if key in _ALLOWED_KEYS}
    user = allowed.get("user")
    if isinstance(user, Mapping):
        allowed["user"] = {key: value for key, value in user.items() if key in _ALLOWED_USER_KEYS}
    for entry in (allowed.get("exception") or {}).get("values") or ():
        for frame in (entry.get("stacktrace") or {}).get("frames") or ():
            frame.pop("vars", None)
    return cast("Event", redact_tree(allowed))
