"""Reporting unexpected errors to Sentry, without credentials and personal data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from monitoring.redaction import redact_tree

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

_CLOSE_TIMEOUT_S = 2.0

# What an event may contain: no request, user, server name, breadcrumbs, extra data or list of modules.
_ALLOWED_KEYS = frozenset(
    {"event_id", "timestamp", "level", "platform", "exception", "tags", "environment", "release", "sdk"}
)

_log = logging.getLogger(__name__)


class ErrorReporter(Protocol):
    """Reports unexpected errors. Neither method raises, and `capture` does not wait for the network."""

    def capture(self, error: BaseException, tags: Mapping[str, str]) -> None: ...

    def close(self) -> None:
        """Send queued reports, for at most two seconds."""


class NullReporter:
    """Reports nothing, for a gateway without a DSN."""

    def capture(self, error: BaseException, tags: Mapping[str, str]) -> None:
        pass

    def close(self) -> None:
        pass


def open_reporter(dsn: str | None, *, environment: str, release: str) -> ErrorReporter:
    """Open a reporter for the Sentry project at `dsn`. Without a DSN sentry_sdk is not imported.

    Raises ValueError for a malformed DSN.
    """
    return _SentryReporter(dsn, environment, release) if dsn else NullReporter()


class _SentryReporter:
    """Uses its own client instead of `sentry_sdk.init`, which sets process-wide state and patches libraries.

    Events have no scope: only the error and its tags are sent.
    """

    def __init__(self, dsn: str, environment: str, release: str) -> None:
        import sentry_sdk

        self._client = sentry_sdk.Client(
            dsn=dsn,
            environment=environment,
            release=release,
            before_send=_scrub,
            default_integrations=False,
            include_local_variables=False,
            max_request_body_size="never",
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            spotlight=False,
            debug=False,
        )

    def capture(self, error: BaseException, tags: Mapping[str, str]) -> None:
        from sentry_sdk.utils import event_from_exception

        try:
            event, hint = event_from_exception(error, client_options=self._client.options)
            event["tags"] = dict(tags)
            self._client.capture_event(event, hint=hint)
        except Exception:  # reporting an error must not cause a second one
            _log.warning("An error could not be reported to Sentry.", exc_info=True)

    def close(self) -> None:
        try:
            self._client.close(timeout=_CLOSE_TIMEOUT_S)
        except Exception:
            _log.warning("The Sentry client did not close cleanly.", exc_info=True)


def _scrub(event: Event, _hint: Hint) -> Event:
    return cast("Event", redact_tree({key: value for key, value in event.items() if key in _ALLOWED_KEYS}))
