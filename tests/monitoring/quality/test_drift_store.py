"""The states of drift, which several processes change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, delete, select, text

import monitoring
from monitoring.quality.drift.store import DriftStore, StoredState
from monitoring.quality.drift.tables import drift_states
from storage.engine import open_blocking_engine, open_engine
from storage.migrations import migrate
from tests.support.polling import PATIENCE_S, wait_until

KEY = ("land", "ana")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_state_that_is_removed_while_it_is_being_locked(database_url: str) -> None:
    """If another process removes a state after the insertion has found it, it is created again."""
    migrated = open_engine(database_url)
    await migrate(migrated, monitoring.MIGRATIONS)
    await migrated.dispose()
    engine = open_blocking_engine(database_url, int(PATIENCE_S))
    with engine.begin() as connection:
        DriftStore(connection).lock([KEY])

    def count_waiting() -> int:
        with engine.begin() as connection:
            return int(connection.execute(text(WAITING)).scalar_one())

    with ThreadPoolExecutor(1) as thread, engine.begin() as removing:
        removing.execute(select(drift_states).with_for_update())
        locked = thread.submit(lock, engine)
        wait_until(lambda: count_waiting() == 1)
        remove_and_commit(removing)
        assert locked.result(PATIENCE_S) == StoredState(*KEY, "", 0, "", "")
    engine.dispose()


def lock(engine: Engine) -> StoredState:
    with engine.begin() as connection:
        return DriftStore(connection).lock([KEY])[KEY]


def remove_and_commit(connection: Connection) -> None:
    connection.execute(delete(drift_states))
    connection.commit()
