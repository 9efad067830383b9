"""What happened: metrics, logs, error reports, the audit log and the prediction ledger."""

from __future__ import annotations

from pathlib import Path

MIGRATIONS = Path(__file__).with_name("migrations")
