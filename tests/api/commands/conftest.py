"""Fixtures: a ledger, and a function that runs `atalaya ledger`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.cli import run
from api.commands.database import run_with_accounts
from api.settings import Settings, load_settings
from auth.principal import Role
from monitoring.chains.ids import MonotonicIds
from monitoring.chains.signing import Signer, new_private_key
from monitoring.ledger.chain import Chain
from monitoring.ledger.entries import EntryDraft
from monitoring.ledger.writing.store import LedgerStore
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.api.commands.ledgers import DAYS, Run, build_facts, find_ana


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> Settings:
    """A SQLite or PostgreSQL database with the user `ana`; she and the subject `ext` have one prediction a day."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", new_private_key())
    settings = load_settings()

    async def add(accounts: Any) -> None:
        await accounts.add("ana", Role.CLIENT, "correct horse battery")

    run_with_accounts(settings, add)
    ids, engine = MonotonicIds(), open_blocking_engine(migrated_url)
    store = LedgerStore(engine.execution_options(**WRITING), Signer(settings.ledger_key()))
    chain = Chain(ids.new())
    store.open_chain(chain.writer)
    for day in DAYS:
        drafts = [
            EntryDraft(ids.new(), f"{day}T09:30:00.000000Z", build_facts(who)) for who in (find_ana(settings), "ext")
        ]
        linked = chain.link(drafts)
        with store.batch_transaction() as connection:
            store.append(connection, linked, chain)
        chain.advance(linked)
        store.write_checkpoint()
    store.close()
    return settings


@pytest.fixture
def ledger(environment: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `atalaya ledger …` and returns its exit status, standard output and standard error."""
    assert environment.ledger_key()

    def ledger(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["ledger", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return ledger
