"""Slows down guessing: counts wrong passwords and, separately, wrong codes, per account and per client network.

All processes share the counters. After three failures the next attempt must wait one second, then two, four … up to a
minute; after fifteen minutes without a failure the counters are reset. Attempts that come too early are rejected.

Attackers must not lock users out: in a network from which the user has recently logged in, the right password is
accepted during the wait too. All other early attempts, for whatever name, end with the same error after the same work,
so that they do not reveal who has logged in from the network. Up to three early attempts are checked; they have their
own counter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy import Row, case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.accounts.service import is_user_name
from auth.errors import BadCredentials, LoginThrottled
from auth.networks import client_network
from auth.tables import known_addresses, login_failures, users
from auth.tokens.digests import hash_text
from storage.engine import dialect_insert
from storage.transactions import reading, writing

FREE_FAILURES = 3
MAX_WAIT_S = 60
RESET_AFTER = timedelta(minutes=15)
KNOWN_NETWORK_LIFETIME = timedelta(days=30)
_REFRESH_NETWORK_AFTER = timedelta(days=1)
_SWEEP_EVERY = timedelta(minutes=1)
_CLOCK_TOLERANCE = timedelta(seconds=5)  # the largest difference expected between the clocks of two machines

_key, _failures, _last_at = login_failures.c.key, login_failures.c.failures, login_failures.c.last_at


class Factor(StrEnum):
    """What an attacker guesses. Each factor has its own counters, so a right password does not reset those of codes."""

    PASSWORD = "password"  # noqa: S105  (the name of a factor)
    CODE = "code"


class Counters(Struct, frozen=True):
    """The keys of the failure counters of an account, of a network, and of the account in the network.

    `early` counts the failed attempts for the account in the network that came too early.
    """

    account: str
    network: str
    pair: str
    early: str

    @property
    def keys(self) -> tuple[str, ...]:
        return self.account, self.network, self.pair, self.early


class Attempt(Struct, frozen=True):
    """One attempt to log in or to confirm an identity.

    `early_by_s` is set if the attempt came too early: a wrong guess must then end with LoginThrottled, and every guess
    is treated as wrong if `refused`. `last_success_at` is set if the user has recently logged in from the network.

    If `counted_at` is set, the attempt was counted as a failure in advance, so that only one of many concurrent
    attempts is checked; `previous` maps the counters to the times of their last failures before it.
    """

    network: str
    counters: Counters
    last_success_at: datetime | None
    early_by_s: int = 0
    no_failures: bool = True
    counted_at: datetime | None = None
    previous: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        return self.early_by_s > 0 and self.last_success_at is None

    @property
    def counted(self) -> tuple[str, ...]:
        """The counters that increase if the attempt fails. An early attempt must not extend the waits of others."""
        counters = self.counters
        return (counters.early,) if self.early_by_s else (counters.account, counters.network, counters.pair)


class LoginThrottle:
    """Every method raises DatabaseUnavailable: while failures cannot be counted, users cannot log in."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._clock = clock
        self._swept_at = clock()

    async def start(self, name: str, address: str, factor: Factor = Factor.PASSWORD) -> Attempt:
        """Start an attempt, before the password or the code is checked. Raises LoginThrottled."""
        now = self._clock()
        network = client_network(address)
        counters = _make_counters(name, network, factor)
        async with reading(self._engine) as connection:
            last_success_at = await _find_last_success(connection, name, network, now)
            rows = (await connection.execute(_select_recent(counters, now))).all()
        if any(row.last_at > now + _CLOCK_TOLERANCE for row in rows):
            rows = await self._correct_times(counters, now)
        attempt = Attempt(network, counters, last_success_at, _check_wait(rows, counters, now), not rows)
        if _count_limiting(rows, attempt) < FREE_FAILURES:
            return attempt
        return await self._precount(attempt, now)

    async def _correct_times(self, counters: Counters, now: datetime) -> Sequence[Row[Any]]:
        """Change times in the future to now: after a clock was set back, the waits would last too long."""
        async with writing(self._engine) as connection:
            await _lock(connection, counters)
            future = _key.in_(counters.keys), _last_at > now
            await connection.execute(update(login_failures).where(*future).values(last_at=now))
            return (await connection.execute(_select_recent(counters, now))).all()

    async def _precount(self, attempt: Attempt, now: datetime) -> Attempt:
        async with writing(self._engine) as connection:
            rows = (await connection.execute(_select_recent(attempt.counters, now).with_for_update())).all()
            attempt = replace(attempt, early_by_s=_check_wait(rows, attempt.counters, now), no_failures=False)
            # Meanwhile, another attempt has made this one early, or has reset the counters.
            if _count_limiting(rows, attempt) < FREE_FAILURES:
                return attempt
            await self._count(connection, attempt, now)
        return replace(attempt, counted_at=now, previous={row.key: row.last_at for row in rows})

    async def record_failure(self, attempt: Attempt) -> None:
        """Count an attempt whose password or code was wrong. Raises LoginThrottled for an early attempt."""
        if attempt.counted_at is None:
            now = self._clock()
            async with writing(self._engine) as connection:
                await self._count(connection, attempt, now)
                if now - self._swept_at > _SWEEP_EVERY:
                    self._swept_at = now
                    # Rows that another attempt has locked are left: waiting for them could cause a deadlock.
                    old = select(_key).where(_last_at < now - RESET_AFTER).with_for_update(skip_locked=True)
                    await connection.execute(delete(login_failures).where(_key.in_(old)))
        if attempt.early_by_s:
            raise LoginThrottled(retry_after_s=attempt.early_by_s)

    async def withdraw(self, attempt: Attempt) -> None:
        """End an attempt whose password or code was not checked: it is counted as neither failed nor successful."""
        if attempt.counted_at is not None:
            async with writing(self._engine) as connection:
                await _lock(connection, attempt.counters)
                for key in sorted(attempt.counted):
                    await _subtract(connection, key, 1, attempt)

    async def record_success(self, attempt: Attempt, user_id: str | None = None) -> None:
        """Reset the account's counters, and subtract its failures from the network's counter, which accounts share.

        `user_id` is given after a complete login, with every factor; the network is then stored as one of the user's.
        Raises BadCredentials, and changes nothing, if the user was deleted in the meantime.
        """
        now, last = self._clock(), attempt.last_success_at
        is_network_current = user_id is None or (last is not None and now - last < _REFRESH_NETWORK_AFTER)
        if attempt.no_failures and is_network_current:
            return
        async with writing(self._engine) as connection:
            if user_id is not None:
                await _lock_user(connection, user_id)
            rows = await _lock(connection, attempt.counters)
            own = sum(row.failures for row in rows if row.key == attempt.counters.pair)
            await _subtract(connection, attempt.counters.network, own, attempt)
            others = [key for key in attempt.counters.keys if key != attempt.counters.network]
            await connection.execute(delete(login_failures).where(_key.in_(others)))
            if user_id is not None:
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
        outdated = known.user_id == user_id, known.last_at < now - KNOWN_NETWORK_LIFETIME
        await connection.execute(delete(known_addresses).where(*outdated))


def compute_wait_s(failures: int) -> int:
    """Return the seconds that must pass between the last of `failures` failures and the next attempt."""
    if failures < FREE_FAILURES:
        return 0
    return min(MAX_WAIT_S, 1 << min(failures - FREE_FAILURES, 10))


def _make_counters(name: str, network: str, factor: Factor) -> Counters:
    prefix = "" if factor is Factor.PASSWORD else f"{factor} "
    account, address = f"{prefix}account:{name}", f"address:{network}"
    pair = f"{account} {address}"
    return Counters(hash_text(account), hash_text(prefix + address), hash_text(pair), hash_text(f"early {pair}"))


def list_counter_keys(name: str, networks: Iterable[str]) -> Sequence[str]:
    """Return the keys of the counters of an account, and of the account in these networks."""
    counters = [_make_counters(name, network, factor) for network in ("", *networks) for factor in Factor]
    return [key for each in counters for key in (each.account, each.pair, each.early)]


def _check_wait(rows: Iterable[Row[Any]], counters: Counters, now: datetime) -> int:
    """Return by how many seconds an attempt at `now` is too early, or 0.

    Raises LoginThrottled if it is too early and too many early attempts have failed.
    """
    by_key = {row.key: row for row in rows}
    waits = [_compute_remaining_s([by_key[key]], now) for key in (counters.account, counters.network) if key in by_key]
    early_by_s = max(waits, default=0)
    own = [by_key[key] for key in (counters.pair, counters.early) if key in by_key]
    if early_by_s and _compute_remaining_s(own, now):
        raise LoginThrottled(retry_after_s=early_by_s)
    return early_by_s


def _compute_remaining_s(rows: Sequence[Row[Any]], now: datetime) -> int:
    """Return the seconds, rounded up, that remain of the wait after the failures that the rows count."""
    if not rows:
        return 0
    last_at: datetime = max(row.last_at for row in rows)
    elapsed_s = max(0.0, (now - last_at).total_seconds())
    wait_s = compute_wait_s(sum(row.failures for row in rows))
    return max(0, math.ceil(wait_s - elapsed_s))


def _count_limiting(rows: Iterable[Row[Any]], attempt: Attempt) -> int:
    """Return the failure count that determines whether the next attempt must wait.

    It is the higher of those of the account and the network or, for an early attempt, that of the pair, including its
    early attempts.
    """
    counters = attempt.counters
    failures: dict[str, int] = {row.key: row.failures for row in rows}
    if attempt.early_by_s:
        return failures.get(counters.pair, 0) + failures.get(counters.early, 0)
    return max(failures.get(counters.account, 0), failures.get(counters.network, 0))


async def _find_last_success(connection: AsyncConnection, name: str, network: str, now: datetime) -> datetime | None:
    """Return when the user last logged in from the network, or None if that was not within KNOWN_NETWORK_LIFETIME."""
    if not is_user_name(name):
        return None
    known = known_addresses.c
    recent = users.c.name == name, known.address == network, known.last_at > now - KNOWN_NETWORK_LIFETIME
    statement = select(known.last_at).join(users, users.c.id == known.user_id).where(*recent)
    last_at: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return last_at


def _select_recent(counters: Counters, now: datetime) -> Any:
    return select(login_failures).where(_key.in_(counters.keys), _last_at >= now - RESET_AFTER).order_by(_key)


async def _lock_user(connection: AsyncConnection, user_id: str) -> None:
    """Delay a deletion of the user, which locks the user before the counters too. Raises BadCredentials."""
    statement = select(users.c.id).where(users.c.id == user_id).with_for_update(read=True, key_share=True)
    if (await connection.execute(statement)).one_or_none() is None:
        raise BadCredentials


async def _lock(connection: AsyncConnection, counters: Counters) -> Sequence[Row[Any]]:
    statement = select(login_failures).where(_key.in_(counters.keys)).order_by(_key).with_for_update()
    return (await connection.execute(statement)).all()


async def _subtract(connection: AsyncConnection, key: str, failures: int, attempt: Attempt) -> None:
    """Subtract failures, and restore the time of the last one if this attempt changed it, which extended the wait."""
    values: dict[str, Any] = {"failures": _failures - failures}
    if attempt.counted_at is not None and key in attempt.counted and key in attempt.previous:
        values["last_at"] = case((_last_at == attempt.counted_at, attempt.previous[key]), else_=_last_at)
    await connection.execute(update(login_failures).where(_key == key).values(**values))
    await connection.execute(delete(login_failures).where(_key == key, _failures <= 0))
