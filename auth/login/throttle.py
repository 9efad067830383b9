"""Slows down password guessing: all processes count failed log-ins per account and per client network.

After three failures the next attempt must wait one second, then two, four … up to a minute; after fifteen minutes
without a failure the counters are reset. Attempts that come too early are rejected before any hashing. In a network
from which the user has recently logged in, only failures for that account in that network delay the user, so that
attackers elsewhere cannot lock users out.
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
from auth.errors import LoginThrottled
from auth.networks import client_network
from auth.tables import known_addresses, login_failures, users
from storage.engine import dialect_insert
from storage.transactions import reading, writing

FREE_FAILURES = 3
MAX_WAIT_S = 60
RESET_AFTER = timedelta(minutes=15)
NETWORK_KNOWN_FOR = timedelta(days=30)
_REFRESH_NETWORK_AFTER = timedelta(days=1)
_SWEEP_EVERY = timedelta(minutes=1)

_key, _failures, _last_at = login_failures.c.key, login_failures.c.failures, login_failures.c.last_at


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to log in, with the keys of its failure counters.

    The counters in `limiting` can delay the attempt; those in `counted` are increased if it fails. `pair` counts the
    failures for this account in this network. `last_success_at` is set if the user has recently logged in from the
    network. A `precounted` attempt was counted as a failure before its outcome is known, so that only one of many
    concurrent attempts is checked.
    """

    network: str
    network_counter: str
    pair: str
    limiting: tuple[str, ...]
    counted: tuple[str, ...]
    last_success_at: datetime | None
    no_failures: bool = True
    precounted: bool = False


class LoginThrottle:
    """Every method raises DatabaseUnavailable: while failures cannot be counted, users cannot log in."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = clock
        self._swept_at = clock()

    async def start(self, name: str, address: str) -> Attempt:
        """Start an attempt, before the password is checked. Raises LoginThrottled."""
        now = self._clock()
        network = client_network(address)
        async with reading(self._engine) as connection:
            last_success_at = await _find_last_success(connection, name, network, now)
            attempt = _make_attempt(name, network, last_success_at)
            rows = (await connection.execute(_select_recent(attempt.counted, now))).all()
        if _check_wait(rows, attempt.limiting, now) >= FREE_FAILURES:
            return await self._precount(attempt, now)
        return replace(attempt, no_failures=not rows)

    async def _precount(self, attempt: Attempt, now: datetime) -> Attempt:
        async with writing(self._engine) as connection:
            rows = (await connection.execute(_select_recent(attempt.counted, now).with_for_update())).all()
            _check_wait(rows, attempt.limiting, now)
            await self._count(connection, attempt, now)
        return replace(attempt, no_failures=False, precounted=True)

    async def record_failure(self, attempt: Attempt) -> None:
        """Count an attempt whose password or code was wrong."""
        if attempt.precounted:
            return
        now = self._clock()
        async with writing(self._engine) as connection:
            await self._count(connection, attempt, now)
            if now - self._swept_at > _SWEEP_EVERY:
                self._swept_at = now
                await connection.execute(delete(login_failures).where(_last_at < now - RESET_AFTER))

    async def withdraw(self, attempt: Attempt) -> None:
        """End an attempt whose password or code was not checked: it counts as neither failed nor successful."""
        if attempt.precounted:
            async with writing(self._engine) as connection:
                await _lock(connection, attempt.counted)
                await _subtract(connection, attempt.counted, 1)

    async def record_success(self, attempt: Attempt, user_id: str) -> None:
        """Reset the account's counters, and subtract its failures from the network's: those of other accounts stay."""
        now = self._clock()
        last = attempt.last_success_at
        if attempt.no_failures and last is not None and now - last < _REFRESH_NETWORK_AFTER:
            return
        async with writing(self._engine) as connection:
            rows = await _lock(connection, attempt.counted)
            own = sum(row.failures for row in rows if row.key == attempt.pair)
            await _subtract(connection, [attempt.network_counter], own)
            others = [key for key in attempt.counted if key != attempt.network_counter]
            await connection.execute(delete(login_failures).where(_key.in_(others)))
            await self._remember_network(connection, user_id, attempt.network, now)

    async def _count(self, connection: AsyncConnection, attempt: Attempt, now: datetime) -> None:
        recent = case((_last_at < now - RESET_AFTER, 0), else_=_failures)
        # All transactions lock the rows in the same order, so that they cannot deadlock.
        for key in sorted(attempt.counted):
            row = dialect_insert(login_failures, self._engine.dialect).values(key=key, failures=1, last_at=now)
            increased = {"failures": recent + 1, "last_at": now}
            await connection.execute(row.on_conflict_do_update(index_elements=[_key], set_=increased))

    async def _remember_network(self, connection: AsyncConnection, user_id: str, network: str, now: datetime) -> None:
        known = known_addresses.c
        row = dialect_insert(known_addresses, self._engine.dialect).values(
            user_id=user_id, address=network, last_at=now
        )
        keys = [known.user_id, known.address]
        await connection.execute(row.on_conflict_do_update(index_elements=keys, set_={"last_at": now}))
        outdated = known.user_id == user_id, known.last_at < now - NETWORK_KNOWN_FOR
        await connection.execute(delete(known_addresses).where(*outdated))


def compute_wait_s(failures: int) -> int:
    """Return the seconds that must pass after the last of so many failures before the next attempt."""
    if failures < FREE_FAILURES:
        return 0
    return min(MAX_WAIT_S, 1 << min(failures - FREE_FAILURES, 10))


def _make_attempt(name: str, network: str, last_success_at: datetime | None) -> Attempt:
    account = _digest(f"account:{name}")
    network_counter = _digest(f"address:{network}")
    pair = _digest(f"account:{name} address:{network}")
    if last_success_at is not None:
        return Attempt(network, network_counter, pair, (pair,), (network_counter, pair), last_success_at)
    return Attempt(network, network_counter, pair, (account, network_counter), (account, network_counter, pair), None)


def _check_wait(rows: Iterable[Row[Any]], limiting: Sequence[str], now: datetime) -> int:
    """Return the highest of the limiting counters. Raises LoginThrottled if one of them requires waiting."""
    limits = [row for row in rows if row.key in limiting]
    remaining_s = max(
        (compute_wait_s(row.failures) - (now - row.last_at).total_seconds() for row in limits), default=0.0
    )
    if remaining_s > 0:
        raise LoginThrottled(retry_after_s=math.ceil(remaining_s))
    return max((row.failures for row in limits), default=0)


async def _find_last_success(connection: AsyncConnection, name: str, network: str, now: datetime) -> datetime | None:
    """Return when the user last logged in from the network, or None if that was not within NETWORK_KNOWN_FOR."""
    if not is_user_name(name):
        return None
    known = known_addresses.c
    recent = users.c.name == name, known.address == network, known.last_at > now - NETWORK_KNOWN_FOR
    statement = select(known.last_at).join(users, users.c.id == known.user_id).where(*recent)
    found: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return found


def _select_recent(keys: Sequence[str], now: datetime) -> Any:
    return select(login_failures).where(_key.in_(keys), _last_at >= now - RESET_AFTER).order_by(_key)


async def _lock(connection: AsyncConnection, keys: Sequence[str]) -> Sequence[Row[Any]]:
    statement = select(login_failures).where(_key.in_(keys)).order_by(_key).with_for_update()
    return (await connection.execute(statement)).all()


async def _subtract(connection: AsyncConnection, keys: Sequence[str], failures: int) -> None:
    fewer = update(login_failures).where(_key.in_(keys)).values(failures=_failures - failures)
    await connection.execute(fewer)
    await connection.execute(delete(login_failures).where(_key.in_(keys), _failures <= 0))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
