"""The database, for commands that run without a gateway."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
import monitoring
from api.errors import DatabaseMissing, SettingsError
from api.settings import Settings, reload_settings, sqlite_file
from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import UserStore
from monitoring.audit.events import AuditEvent, new_event
from monitoring.audit.store import AuditStore, append_within
from monitoring.tasks.runs import Task
from monitoring.tasks.store import TaskRunStore
from storage.engine import check_sqlite_file, open_blocking_engine, open_engine
from storage.errors import DatabaseUnavailable
from storage.migrations import has_tables, migrate
from storage.transactions import Record

T = TypeVar("T")

_LOCK_TIMEOUT_S = 60  # for the lock of a gateway that is writing


class CommandEvent(NamedTuple):
    """What a command did, for the audit log; `target` is a kind, a colon and an id."""

    event: str
    outcome: str
    target: str = ""
    detail: Mapping[str, str] = MappingProxyType({})


DescribeEvent = Callable[[T], CommandEvent]


def run_with_engine(
    settings: Settings,
    action: Callable[[AsyncEngine], Awaitable[T]],
    describe_event: DescribeEvent[T] | None = None,
    *,
    create: bool = False,
) -> T:
    """Run `action` on the database, after the migrations, in an event loop of its own.

    Afterwards, the event that `describe_event` returns for the result is written to the audit log. Use that only for
    actions that do not change the database; the others take a Record, which writes the event in the same transaction
    (see `recording`). Raises DatabaseUnavailable, AuditUnavailable, and DatabaseMissing unless `create` is set.
    """
    url = settings.database_url.get_secret_value()
    if not create:
        check_database_exists(url)
    check_sqlite_file(url)

    async def run() -> T:
        engine = open_engine(url)
        try:
            if not create and not await has_tables(engine, auth.MIGRATIONS, monitoring.MIGRATIONS):
                raise DatabaseMissing(describe_database(url))
            await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
            result = await action(engine)
            if describe_event is not None:
                await record_event(engine, describe_event(result))
            return result
        finally:
            await engine.dispose()

    return asyncio.run(run())


def migrate_database(settings: Settings) -> None:
    """Bring the tables up to date, for callers that open the database. Raises DatabaseUnavailable, DatabaseMissing."""

    async def do_nothing(_: AsyncEngine) -> None: ...

    run_with_engine(settings, do_nothing)


@contextmanager
def open_migrated_engine(settings: Settings) -> Iterator[Engine]:
    """Open an engine for this thread, after the migrations. Raises DatabaseUnavailable, DatabaseMissing."""
    migrate_database(settings)
    engine = open_blocking_engine(settings.database_url.get_secret_value(), _LOCK_TIMEOUT_S)
    try:
        yield engine
    finally:
        engine.dispose()


def run_with_accounts(
    settings: Settings,
    action: Callable[[AccountService], Awaitable[T]],
    *,
    create: bool = False,
) -> T:
    """Run `action` on the accounts in the database, in an event loop of its own; see run_with_engine."""

    async def run(engine: AsyncEngine) -> T:
        with closing(PasswordHasher()) as hasher:
            return await action(AccountService(UserStore(engine), hasher))

    return run_with_engine(settings, run, create=create)


@contextmanager
def recorded_run(task: Task) -> Iterator[None]:
    """Record in the database whether the block succeeds; the gateway's metrics show it.

    A missing or unavailable database is ignored, because the task must not fail for that.
    """
    try:
        yield
    except Exception:  # not for Ctrl-C, which is not a failure of the task
        record_run(task, succeeded=False)
        raise
    record_run(task, succeeded=True)


def record_run(task: Task, *, succeeded: bool) -> None:
    """Record a run, as `recorded_run` does."""

    async def record(url: str) -> None:
        engine = open_engine(url)
        try:
            await TaskRunStore(engine).record(task, int(time.time()), succeeded=succeeded)
        finally:
            await engine.dispose()

    with suppress(SettingsError, DatabaseMissing, DatabaseUnavailable):
        url = reload_settings().database_url.get_secret_value()
        check_database_exists(url)
        check_sqlite_file(url)
        asyncio.run(record(url))


def check_database_exists(url: str) -> None:
    """Check that SQLite's file exists, because opening it would create it. Raises DatabaseMissing."""
    path = sqlite_file(url)
    if path is not None and not path.exists():
        raise DatabaseMissing(str(path))


def describe_database(url: str) -> str:
    """Describe the database to people: SQLite's file, or PostgreSQL's hosts and database."""
    path, parts = sqlite_file(url), urlsplit(url)
    hosts = parse_qs(parts.query).get("host", [parts.hostname or "localhost"])
    return str(path) if path else f"{', '.join(hosts)}{parts.path}"


def write_event(settings: Settings, event: CommandEvent) -> None:
    """Write an event to the audit log of the database that the settings name.

    Raises DatabaseUnavailable, DatabaseMissing, AuditUnavailable.
    """
    run_with_engine(settings, lambda engine: record_event(engine, event))


async def record_event(engine: AsyncEngine, event: CommandEvent) -> None:
    """Write an event to the audit log, with the operating system's user as its actor. Raises AuditUnavailable."""
    await AuditStore(engine).append([_build_event(event)])


def recording(describe_event: DescribeEvent[T]) -> Record[T]:
    """Return a function that writes the event to the audit log in the transaction of the change it describes."""
    return lambda connection, result: append_within(connection, [_build_event(describe_event(result))])


def _build_event(event: CommandEvent) -> AuditEvent:
    return new_event(event.event, event.outcome, actor=command_actor(), target=event.target, detail=event.detail)


def command_actor() -> str:
    """Return `cli:USER` for the audit log, by the process's user id: environment variables could name anyone."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # containers run under user ids without a name
        return f"cli:{os.getuid()}"
