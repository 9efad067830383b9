"""Brings the sums over the recorded requests up to date before a command reads them."""

from __future__ import annotations

from sqlalchemy import Engine

from api.services.measuring.drift.references import Detectors
from api.services.measuring.drift.tracker import make_sum_updater
from api.settings import Settings


def update_sums(settings: Settings, engine: Engine, detectors: Detectors | None = None) -> None:
    """Add all recorded requests. Raises LedgerUnavailable."""
    for _ in make_sum_updater(settings, engine, detectors).update():
        pass
