"""The record of access: who did what to whom, in a chain of hashes that shows any later change."""

from __future__ import annotations

from pathlib import Path

MIGRATIONS = Path(__file__).parents[1] / "migrations"
