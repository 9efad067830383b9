"""The first charges of a month, which insert rows, in concurrent transactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from auth.quotas.tallies import QuotaCharge, apply_charges
from storage.driver import DriverConnection
from storage.engine import open_blocking_engine
from storage.transactions import WRITING
from tests.support.polling import wait_until

USER, KEY = "user:ana", "key:camera"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def charge(connection: Connection, *owners: str) -> int:
    """Charge one request, and return how many requests the last of the owners has used."""
    _, totals = apply_charges(DriverConnection(connection), [QuotaCharge(owners, "2026-11", 1, 5)])
    return totals[owners[-1], "2026-11"].requests


def charge_apart(engine: Engine, *owners: str) -> int:
    with engine.begin() as connection:
        return charge(connection, *owners)


def is_waiting(engine: Engine) -> bool:
    with engine.begin() as connection:
        return bool(connection.execute(text(WAITING)).scalar_one())


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_first_charge_of_a_key_locks_nothing_else_while_it_waits(migrated_url: str) -> None:
    """Of two transactions that insert the row of one key and charge its owner, one waits, and they do not deadlock."""
    engine = open_blocking_engine(migrated_url, 60).execution_options(**WRITING)
    charge_apart(engine, USER)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            assert charge(connection, KEY) == 1
            other = pool.submit(charge_apart, engine, USER, KEY)
            wait_until(lambda: is_waiting(engine))
            assert charge(connection, USER) == 2
        assert other.result() == 2
    engine.dispose()
