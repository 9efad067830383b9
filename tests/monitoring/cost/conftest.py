"""A migrated database of either kind."""

from __future__ import annotations

from tests.monitoring.quality.conftest import blocking, url

__all__ = ["blocking", "url"]
