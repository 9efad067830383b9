"""Guessing passwords is slow: failures are counted for an account and for an address, by all processes together.

After three failures the next try waits a second, then two, four … up to a minute; fifteen minutes without a failure
forget them. What waits is refused before any hashing. Where an owner has logged in lately, only failures with the
owner's own name from there slow the owner down: nobody can lock an owner out from elsewhere.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.accounts.service import is_user_name
from auth.errors import TooManyGuesses
from auth.networks import client_network
from auth.tables import known_addresses, login_failures, users
from storage.engine import dialect_insert
from storage.transactions import reading, writing

FREE_FAILURES = 3
LONGEST_WAIT_S = 60
FORGOTTEN_AFTER = timedelta(minutes=15)
KNOWN_FOR = timedelta(days=30)
_NOTED_AGAIN_AFTER = timedelta(days=1)
_SWEEP_EVERY = timedelta(minutes=1)

_key, _failures, _last_at = login_failures.c.key, login_failures.c.failures, login_failures.c.last_at


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to log in: `watched` are the counters that can make it wait, `counted` those that its failure raises.

    `pair` counts what failed for this account from this address. A `claimed` attempt was counted as a failure before
    it was known how it ends, so that of many at once only one is let through.
    """

    place: str
    address: str
    pair: str
    watched: tuple[str, ...]
    counted: tuple[str, ...]
    known_since: datetime | None
    unblemished: bool = True
    claimed: bool = False


class LoginThrottle:
    """Every method raises DatabaseUnavailable: while failures cannot be counted, nobody logs in."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = clock
        self._swept_at = clock()

    async def begin(self, name: str, address: str) -> Attempt:
        """Ask before a password is checked. Raises TooManyGuesses."""
        now = self._clock()
        place = client_network(address)
        async with reading(self._engine) as connection:
            known_since = await _known_since(connection, name, place, now)
            attempt = _attempt(name, place, known_since)
            rows = (await connection.execute(_recent(attempt.counted, now))).all()
        watched = _refuse_waiting(rows, attempt.watched, now)
        if any(row.failures >= FREE_FAILURES for row in watched):
            return await self._claim(attempt, now)
        return replace(attempt, unblemished=not rows)

    async def _claim(self, attempt: Attempt, now: datetime) -> Attempt:
        async with writing(self._engine) as connection:
            rows = (await connection.execute(_recent(attempt.counted, now).with_for_update())).all()
            _refuse_waiting(rows, attempt.watched, now)
            await self._count(connection, attempt, now)
        return replace(attempt, unblemished=False, claimed=True)

    async def failed(self, attempt: Attempt) -> None:
        """The password or the code was wrong."""
        if attempt.claimed:
            return
        now = self._clock()
        async with writing(self._engine) as connection:
            await self._count(connection, attempt, now)
            if now - self._swept_at > _SWEEP_EVERY:
                self._swept_at = now
                await connection.execute(delete(login_failures).where(_last_at < now - FORGOTTEN_AFTER))

    async def undone(self, attempt: Attempt) -> None:
        """It came to no verdict."""
        if attempt.claimed:
            async with writing(self._engine) as connection:
                await _lock(connection, attempt.counted)
                await _subtract(connection, attempt.counted, 1)

    async def succeeded(self, attempt: Attempt, user_id: str) -> None:
        """Forget the failures of this account, and what they added to the address's: others' failures stay."""
        now = self._clock()
        lately = attempt.known_since is not None and now - attempt.known_since < _NOTED_AGAIN_AFTER
        if attempt.unblemished and lately:
            return
        async with writing(self._engine) as connection:
            rows = await _lock(connection, attempt.counted)
            own = sum(row.failures for row in rows if row.key == attempt.pair)
            await _subtract(connection, [attempt.address], own)
            others = [key for key in attempt.counted if key != attempt.address]
            await connection.execute(delete(login_failures).where(_key.in_(others)))
            await self._remember(connection, user_id, attempt.place, now)

    async def _count(self, connection: AsyncConnection, attempt: Attempt, now: datetime) -> None:
        recent = case((_last_at < now - FORGOTTEN_AFTER, 0), else_=_failures)
        # In one order everywhere, or two transactions could wait for each other.
        for key in sorted(attempt.counted):
            row = dialect_insert(login_failures, self._engine.dialect).values(key=key, failures=1, last_at=now)
            again = {"failures": recent + 1, "last_at": now}
            await connection.execute(row.on_conflict_do_update(index_elements=[_key], set_=again))

    async def _remember(self, connection: AsyncConnection, user_id: str, place: str, now: datetime) -> None:
        known = known_addresses.c
        row = dialect_insert(known_addresses, self._engine.dialect).values(user_id=user_id, address=place, last_at=now)
        keys = [known.user_id, known.address]
        await connection.execute(row.on_conflict_do_update(index_elements=keys, set_={"last_at": now}))
        outdated = known.user_id == user_id, known.last_at < now - KNOWN_FOR
        await connection.execute(delete(known_addresses).where(*outdated))


def wait_s(failures: int) -> int:
    """How long after that many failures the next try waits."""
    if failures < FREE_FAILURES:
        return 0
    return min(LONGEST_WAIT_S, 1 << min(failures - FREE_FAILURES, 10))


def _attempt(name: str, place: str, known_since: datetime | None) -> Attempt:
    account, address, pair = map(_digest, (f"account:{name}", f"address:{place}", f"account:{name} address:{place}"))
    if known_since is not None:
        return Attempt(place, address, pair, (pair,), (address, pair), known_since)
    return Attempt(place, address, pair, (account, address), (account, address, pair), None)


def _refuse_waiting(rows: Iterable[Row[Any]], watched: Sequence[str], now: datetime) -> list[Row[Any]]:
    """Return the watched rows. Raises TooManyGuesses while one of them has to wait."""
    own = [row for row in rows if row.key in watched]
    left_s = max((wait_s(row.failures) - (now - row.last_at).total_seconds() for row in own), default=0.0)
    if left_s > 0:
        raise TooManyGuesses(retry_after_s=math.ceil(left_s))
    return own


async def _known_since(connection: AsyncConnection, name: str, place: str, now: datetime) -> datetime | None:
    """When the owner of the name last logged in from there, if lately."""
    if not is_user_name(name):
        return None
    known = known_addresses.c
    lately = users.c.name == name, known.address == place, known.last_at > now - KNOWN_FOR
    statement = select(known.last_at).join(users, users.c.id == known.user_id).where(*lately)
    found: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return found


def _recent(keys: Sequence[str], now: datetime) -> Any:
    return select(login_failures).where(_key.in_(keys), _last_at >= now - FORGOTTEN_AFTER).order_by(_key)


async def _lock(connection: AsyncConnection, keys: Sequence[str]) -> Sequence[Row[Any]]:
    statement = select(login_failures).where(_key.in_(keys)).order_by(_key).with_for_update()
    return (await connection.execute(statement)).all()


async def _subtract(connection: AsyncConnection, keys: Sequence[str], failures: int) -> None:
    fewer = update(login_failures).where(_key.in_(keys)).values(failures=_failures - failures)
    await connection.execute(fewer)
    await connection.execute(delete(login_failures).where(_key.in_(keys), _failures <= 0))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
