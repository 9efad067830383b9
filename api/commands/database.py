"""The database, for commands that work without a server."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import auth
import monitoring
from api.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class Note(NamedTuple):
    """What a command did, in the words of the record of access; `target` is a kind, a colon and an id."""

    event: str
    outcome: str
    target: str = ""
    detail: Mapping[str, str] = MappingProxyType({})


Noting = Callable[[T], Note | None]


def with_engine(settings: Settings, act: Callable[[AsyncEngine], Awaitable[T]], noting: Noting[T] | None = None) -> T:
    """Run `act` on the settings' database, migrated first, in an event loop of its own.

    `noting` makes of its result what the record of access is to hold.
    """
    from storage.engine import check_sqlite_file, open_engine
    from storage.migrations import migrate

    check_sqlite_file(settings.database_url.get_secret_value())

    async def run() -> T:
        engine = open_engine(settings.database_url.get_secret_value())
        try:
            await migrate(engine, auth.MIGRATIONS, monitoring.MIGRATIONS)
            result = await act(engine)
            if noting and (done := noting(result)):
                await note(engine, done)
            return result
        finally:
            await engine.dispose()

    return asyncio.run(run())


async def note(engine: AsyncEngine, done: Note) -> None:
    """Write into the record of access what the operating system's user did. Raises AuditUnavailable."""
    from monitoring.audit.events import new_event
    from monitoring.audit.store import AuditStore

    noted = new_event(done.event, done.outcome, actor=operator(), target=done.target, detail=done.detail)
    await AuditStore(engine).append([noted])


def operator() -> str:
    """Who runs the command, by the process's own user: the environment can say anything."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # containers run under numbers without a name
        return f"cli:{os.getuid()}"
