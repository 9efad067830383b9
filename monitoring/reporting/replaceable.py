"""An error reporter that can be replaced while the process reports to it."""

from __future__ import annotations

from collections.abc import Mapping

from monitoring.reporting.sentry import CLOSE_LIMIT_S, ErrorReporter


class ReplaceableReporter:
    """Forwards reports to the current reporter."""

    def __init__(self, reporter: ErrorReporter) -> None:
        self._reporter = reporter

    def replace(self, reporter: ErrorReporter) -> None:
        """Report to `reporter` from now on, and close the earlier one, which may take two seconds."""
        earlier, self._reporter = self._reporter, reporter
        earlier.close()

    def capture(self, error: BaseException, tags: Mapping[str, str], principal: str | None = None) -> None:
        self._reporter.capture(error, tags, principal)

    def flush(self) -> None:
        self._reporter.flush()

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        self._reporter.close(limit_s)
