"""A migrated SQLite or PostgreSQL database."""

from __future__ import annotations

from tests.monitoring.quality.conftest import blocking, url

__all__ = ["blocking", "url"]
