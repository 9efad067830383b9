"""Erasing kept images in the background: the order, a store that does not respond, and the hourly upkeep."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs
from uuid_utils import uuid7

from api.services.background import run_in_background
from api.services.personal_data import erasure
from api.services.personal_data.erasure import RecordErasure
from api.services.personal_data.store_thread import StoreThread
from api.services.personal_data.upkeep import RemovedImages, follow_erasures, remove_images
from api.settings import Settings
from api.settings.records import LedgerSettings
from auth.accounts.deletion import AccountDeletion
from auth.accounts.erasures import PendingErasures
from auth.accounts.store import UserChange, UserStore
from auth.principal import Role
from auth.tables import pending_erasures
from monitoring.audit.store import AuditStore
from monitoring.chains.signing import Signer
from storage.engine import open_engine
from storage.images.archive import ImageArchive
from storage.images.opening import open_blobs
from storage.images.sealing import ImageSeal
from storage.logins import DatabaseLogin
from tests.monitoring.ledger.ledgers import KEY, fill_ledger
from tests.support.paths import ROOT
from tests.support.polling import PATIENCE_S, wait_until_async

UNKNOWN = "0a54f4b8-bc9a-4019-bf0d-15032078e849"
DAY = timedelta(days=1)
# Ends although the operation of the store never does.
CLOSE_DURING_AN_OPERATION = """
import asyncio, threading
from api.services.personal_data.store_thread import StoreThread

async def main():
    store, started = StoreThread(None), threading.Event()
    operation = asyncio.ensure_future(store.run(lambda: (started.set(), threading.Event().wait())))
    await asyncio.to_thread(started.wait)
    store.close()

asyncio.run(main())
"""


@pytest.fixture
def store(tmp_path: Path) -> StoreThread:
    return StoreThread(ImageArchive(open_blobs(f"file://{tmp_path}/images"), ImageSeal([os.urandom(32)])))


def keep(store: StoreThread, owner: str, made_at: datetime) -> str:
    name = str(uuid7(nanoseconds=int(made_at.timestamp() * 1e9)))
    store.archive.keep(owner, name, b"image")
    return name


@asynccontextmanager
async def occupied(store: StoreThread) -> AsyncIterator[None]:
    """Prevent the store from responding until the context ends."""
    started, released = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        released.wait()

    operation = asyncio.ensure_future(store.run(wait))
    await asyncio.to_thread(started.wait)
    try:
        yield
    finally:
        released.set()
        await operation


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_records_are_erased_before_images(
    settings: Settings, store: StoreThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's records are erased while the store does not respond; a shutdown then leaves only the images."""
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", 0.0)
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    erasing = RecordErasure(settings, AuditStore(engine), PendingErasures(engine), DatabaseLogin(url), store)
    with capture_logs() as logs:
        async with occupied(store):
            task = asyncio.create_task(erasing.erase(UNKNOWN, "adam"))
            await wait_until_async(lambda: logs)
            await stop(task)
    await engine.dispose()
    assert [line["event"] for line in logs] == ["user_erased", "images_not_erased"]


async def test_a_stop_before_the_records_are_erased(settings: Settings) -> None:
    """A gateway that stops before it has erased a user logs the command that completes the erasure."""
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    erasing = RecordErasure(settings, AuditStore(engine), PendingErasures(engine), DatabaseLogin(url), None)
    with capture_logs() as logs:
        task = asyncio.create_task(erasing.erase(UNKNOWN, "adam"))
        await asyncio.sleep(0)
        await stop(task)
    await engine.dispose()
    (line,) = logs
    assert (line["event"], line["retry"]) == ("user_not_erased", f"atalaya users delete {UNKNOWN}")


async def let_time_pass(engine: AsyncEngine) -> None:
    """Make every pending erasure due, as if its user was deleted a day ago."""
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        await connection.execute(update(pending_erasures).values(due_at=now, deleted_at=now - DAY))


class _FaultyLog(AuditStore):
    """Erases, and then fails once with an unexpected error."""

    failures = 1

    async def erase(self, subject: str, actor: str) -> int:
        erased = await super().erase(subject, actor)
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError
        return erased


async def test_an_interrupted_erasure_is_completed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an unexpected error ends an erasure, the command that repeats it is logged, and the upkeep completes it."""
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", 0.0)
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    pending = PendingErasures(engine)
    erasing = RecordErasure(settings, _FaultyLog(engine), pending, DatabaseLogin(url), None)
    ana = next(user for user in await UserStore(engine).list() if user.name == "ana")
    await AccountDeletion(engine).delete(ana.id, "adam")
    with capture_logs() as logs:
        await erasing.erase(ana.id, "adam")
        await let_time_pass(engine)
        async with run_in_background(follow_erasures(erasing, pending, _sleep_briefly)):
            await wait_until_async(lambda: len(logs) == 2)
    assert await pending.take_due(datetime.now(UTC) + DAY) == []
    await engine.dispose()
    assert [line["event"] for line in logs] == ["user_not_erased", "user_erased"]
    assert logs[0]["retry"] == f"atalaya users delete {ana.id}"


async def test_what_a_long_request_records_is_erased(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that a user's running request records after the erasure is erased once no request can still run."""
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", 0.0)
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    pending = PendingErasures(engine)
    erasing = RecordErasure(settings, AuditStore(engine), pending, DatabaseLogin(url), None)
    ana = next(user for user in await UserStore(engine).list() if user.name == "ana")
    fill_ledger(url, 2, datetime.now(UTC), ana.id)
    await AccountDeletion(engine).delete(ana.id, "adam")

    def count_predictions() -> list[int]:
        return [line["predictions"] for line in logs if line["event"] == "user_erased"]

    with capture_logs() as logs:
        await erasing.erase(ana.id, "adam")
        fill_ledger(url, 3, datetime.now(UTC) + timedelta(seconds=9), ana.id)  # also by another replica's clock
        await let_time_pass(engine)
        async with run_in_background(follow_erasures(erasing, pending, _sleep_briefly)):
            await wait_until_async(lambda: len(count_predictions()) == 2)
    assert await pending.take_due(datetime.now(UTC) + DAY) == []
    await engine.dispose()
    assert count_predictions() == [2, 3]


async def test_earlier_predictions_wait_for_the_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ledger disabled and no key, a user with earlier predictions stays to be erased until there is a key."""
    monkeypatch.setattr(erasure, "IN_FLIGHT_S", 0.0)
    url = settings.database_url.get_secret_value()
    engine = open_engine(url)
    pending, users = PendingErasures(engine), await UserStore(engine).list()
    ana, olga = (next(user for user in users if user.name == name) for name in ("ana", "olga"))
    fill_ledger(url, 2, datetime.now(UTC), ana.id)
    disabled = settings.model_copy(update={"ledger": LedgerSettings(enabled=False)})
    erasing = RecordErasure(disabled, AuditStore(engine), pending, DatabaseLogin(url), None)
    with capture_logs() as logs:
        for user in (ana, olga):
            await AccountDeletion(engine).delete(user.id, "adam")
            await let_time_pass(engine)
            await erasing.erase(user.id, "adam")
        waiting = [each.user_id for each in await pending.take_due(datetime.now(UTC) + DAY)]
        erasing.use_signer(Signer(KEY))
        await erasing.erase(ana.id, "adam")
    assert waiting == [ana.id]
    assert await pending.take_due(datetime.now(UTC) + 2 * DAY) == []
    await engine.dispose()
    assert [line["event"] for line in logs] == ["user_not_erased", "user_erased", "user_erased"]
    assert (logs[0]["code"], logs[2]["predictions"]) == ("ledger_key_missing", 2)


async def _sleep_briefly(_seconds: float) -> None:
    await asyncio.sleep(0.01)


async def test_an_erasure_that_waits_is_not_repeated(store: StoreThread) -> None:
    """While an erasure waits for the store, further ones of the same user are skipped; a later one is not."""
    keep(store, UNKNOWN, datetime.now(UTC))
    async with occupied(store):
        first = asyncio.ensure_future(store.erase(UNKNOWN))
        await asyncio.sleep(0)
        assert await store.erase(UNKNOWN) is None
    assert await first == 1
    keep(store, UNKNOWN, datetime.now(UTC))
    assert await store.erase(UNKNOWN) == 1


async def test_a_cancelled_erasure_can_be_repeated(store: StoreThread) -> None:
    """An erasure that is cancelled while it waits does not replace later ones of its owner."""
    keep(store, UNKNOWN, datetime.now(UTC))
    async with occupied(store):
        cancelled = asyncio.create_task(store.erase(UNKNOWN))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert await store.erase(UNKNOWN) == 1


async def test_closing_cancels_the_operations_that_wait(store: StoreThread) -> None:
    """Closing cancels the operations that have not started, and lets the running one end; later ones are rejected."""
    async with occupied(store):
        waiting = asyncio.ensure_future(store.erase(UNKNOWN))
        await asyncio.sleep(0)
        store.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    with pytest.raises(RuntimeError):
        await store.erase(UNKNOWN)


def test_a_running_operation_does_not_delay_the_exit() -> None:
    """A process whose store does not respond exits with status 0 once the thread is closed."""
    command = [sys.executable, "-c", CLOSE_DURING_AN_OPERATION]
    assert subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S, check=False).returncode == 0


async def test_upkeep_removes_what_may_not_be_kept(engine: AsyncEngine, store: StoreThread) -> None:
    """The upkeep removes images older than their owner's consent or the retention, and all images without consent."""
    users, now = UserStore(engine), datetime.now(UTC)
    names = ("ana", "bob", "cleo")
    ana, bob, cleo = [(await users.add(name, Role.CLIENT, "$h")).id for name in names]
    for user in (ana, bob):
        await users.change(user, UserChange(keep_images=True))
    keep(store, ana, now - DAY)  # its erasure has failed; she has consented again since
    young = keep(store, ana, now + DAY)
    for owner in (cleo, UNKNOWN):
        keep(store, owner, now - DAY)
    assert await remove_images(users, store, now - 7 * DAY) == RemovedImages(disallowed=3, old=0)
    keep(store, bob, now + DAY)
    assert await remove_images(users, store, now + 2 * DAY) == RemovedImages(disallowed=0, old=2)
    assert store.archive.read(ana, young) is None


async def test_a_permission_during_the_upkeep(engine: AsyncEngine, store: StoreThread) -> None:
    """A user who consents while the upkeep runs loses no image that is kept from then on."""
    users = UserStore(engine)
    ana = (await users.add("ana", Role.CLIENT, "$h")).id
    old = keep(store, ana, datetime.now(UTC) - DAY)
    async with occupied(store):
        upkeep = asyncio.ensure_future(remove_images(users, store, datetime.now(UTC) - 7 * DAY))
        await asyncio.sleep(0)
        await users.change(ana, UserChange(keep_images=True))
        new = keep(store, ana, datetime.now(UTC) + timedelta(seconds=1))
    assert await upkeep == RemovedImages(disallowed=1, old=0)
    assert (store.archive.read(ana, old), store.archive.read(ana, new)) == (None, b"image")
