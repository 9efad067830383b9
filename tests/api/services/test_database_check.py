"""The check of the database that /readyz makes."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from api.services.runtime import PING_LIMIT_S, DatabaseCheck
from monitoring.health import check_readiness
from storage.engine import open_engine
from storage.errors import DatabaseUnavailable
from tests.support.polling import PATIENCE_S


class SlowDatabase:
    """A database in which every statement waits while `fast` is not set."""

    def __init__(self, path: Path) -> None:
        self.fast = threading.Event()
        self.fast.set()
        self.engine: AsyncEngine = open_engine(f"sqlite:///{path}")
        event.listen(self.engine.sync_engine, "connect", self._slow_down)

    def _slow_down(self, connection: Any, _record: object) -> None:
        async def set_handler(driver: Any) -> None:
            await driver.set_progress_handler(self._wait, 1)

        connection.run_async(set_handler)

    def _wait(self) -> int:
        self.fast.wait(PATIENCE_S)
        return 0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SlowDatabase]:
    slow = SlowDatabase(tmp_path / "slow.db")
    yield slow
    slow.fast.set()
    await slow.engine.dispose()


async def record_problems(action: Callable[[], Any]) -> list[str]:
    """Return what the event loop reports while the action runs, and when its garbage is collected."""
    problems: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context["message"]))
    await action()
    gc.collect()
    return problems


async def test_a_slow_database_leaves_no_task_behind(database: SlowDatabase) -> None:
    """When a ping exceeds both limits of the check, it ends as soon as the database responds, and no task remains."""
    check = DatabaseCheck(database.engine)
    await check.ping()

    async def ping_slowly() -> None:
        database.fast.clear()
        # The second limit ends after the first one, while the statement still runs.
        readiness = await check_readiness({"database": check.ping}, timeout_s=PING_LIMIT_S + 0.1)
        assert readiness.checks == {"database": "TimeoutError"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(check.ping(), 0.1)
        database.fast.set()
        await check.ping()

    assert await record_problems(ping_slowly) == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_checks_share_a_slow_ping(database: SlowDatabase) -> None:
    """A check that begins while a ping is in progress waits for that ping: a slow database gets no second one."""
    check = DatabaseCheck(database.engine)
    await check.ping()
    statements: list[str] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *each: statements.append(each[2]))
    database.fast.clear()
    results = await asyncio.gather(check.ping(), check.ping(), return_exceptions=True)
    database.fast.set()
    await check.ping()
    assert [type(result) for result in results] == [TimeoutError, TimeoutError]
    assert statements.count("SELECT 1") == 1


async def test_closing_ends_a_slow_ping(database: SlowDatabase) -> None:
    """Closing cancels the ping in progress, and returns once its connection is closed."""
    check = DatabaseCheck(database.engine)
    await check.ping()

    async def close_while_pinging() -> None:
        database.fast.clear()
        with pytest.raises(TimeoutError):
            await check.ping()
        closing = asyncio.create_task(check.close())
        await asyncio.sleep(0)
        database.fast.set()
        await closing

    assert await record_problems(close_while_pinging) == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_unavailable_database_is_an_error(tmp_path: Path) -> None:
    """A database that cannot be used is reported by its own error."""
    folder = tmp_path / "folder"
    engine = open_engine(f"sqlite:///{folder}/gateway.db")
    (folder / "gateway.db").write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseUnavailable):
        await DatabaseCheck(engine).ping()
    await engine.dispose()
