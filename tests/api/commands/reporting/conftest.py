"""Fixture: a database with the first days of the simulated year."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from api.commands.database import open_migrated_engine, run_with_accounts
from api.settings import load_settings
from auth.accounts.service import AccountService
from auth.principal import Role
from monitoring.chains.signing import new_private_key
from tests.api.commands.reporting.year import Callers, Year


@pytest.fixture
def january(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A database with the first ten days of the year, in which only the user `maps` sends requests."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/cost.db")
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    monkeypatch.setenv("COST__VCPUS", "1")
    monkeypatch.setenv("COST__MEMORY_GB", "0.5")
    settings = load_settings()

    async def add(accounts: AccountService) -> str:
        return (await accounts.add("maps", Role.CLIENT, "correct horse battery")).id

    maps = run_with_accounts(settings, add, create=True)
    with open_migrated_engine(settings) as engine:
        year = Year(settings, engine, Callers(maps, "", ""))
        year.play(date(2025, 1, 11))
        year.close()
