"""Password hashing and the password policy."""

from __future__ import annotations

import asyncio
import re
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from argon2 import PasswordHasher as Argon2
from argon2 import Type, extract_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.accounts.passwords import (
    COMMON_PASSWORDS_FILE,
    MAX_LENGTH,
    PasswordHasher,
    check_password_policy,
    is_pattern,
)
from auth.errors import HashingBusy, PasswordRefused

GOOD = "walnut ferry quiet lamp"


@pytest.fixture
def make_hasher() -> Iterator[Callable[[int, int], PasswordHasher]]:
    """Make hashers with a concurrency and a number of waiting callers, and close them afterwards."""
    with ExitStack() as stack:
        yield lambda concurrency, max_waiting: stack.enter_context(closing(PasswordHasher(concurrency, max_waiting)))


async def test_a_hash_is_argon2id_with_the_documented_cost(hasher: PasswordHasher) -> None:
    """Hashes are Argon2id, 19456 KiB, 2 passes, 1 lane, each with its own salt of 16 bytes."""
    first, second = await hasher.hash(GOOD), await hasher.hash(GOOD)
    found = extract_parameters(first)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19_456, 2, 1)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert found.salt_len == 16
    assert first != second


async def test_another_implementation_verifies_a_hash(hasher: PasswordHasher) -> None:
    """Nothing is added to the password before hashing."""
    assert Argon2().verify(await hasher.hash(GOOD), GOOD)


async def test_only_the_same_password_matches(hasher: PasswordHasher) -> None:
    """Case, spaces and Unicode normal forms matter; an unknown user never matches."""
    stored = await hasher.hash("Über walnut ferry")
    assert await hasher.verify("Über walnut ferry", stored)
    for wrong in ("", "über walnut ferry", "Über walnut ferry ", "U\u0308ber walnut ferry", "Über walnut ferry\0"):
        assert not await hasher.verify(wrong, stored)
    assert not await hasher.verify("Über walnut ferry", None)


@pytest.mark.parametrize("filler", ["x", "é", "\U0001f600", "\ud800", "\0"])
async def test_a_password_is_never_truncated(hasher: PasswordHasher, filler: str) -> None:
    """Passwords of the maximum length that differ only in the last character do not match."""
    longest = filler * (MAX_LENGTH - 1)
    stored = await hasher.hash(longest + "a")
    assert await hasher.verify(longest + "a", stored)
    assert not await hasher.verify(longest + "b", stored)
    assert not await hasher.verify(longest, stored)


async def test_an_overlong_password_is_wrong(hasher: PasswordHasher) -> None:
    """A log-in with more than the maximum number of characters fails like any wrong password."""
    assert not await hasher.verify("x" * 1_000_000, await hasher.hash("x" * MAX_LENGTH))
    assert not await hasher.verify("x" * 1_000_000, await hasher.hash(""))


async def _processor_seconds(work: Awaitable[object]) -> float:
    started = time.process_time()
    await work
    return time.process_time() - started


async def test_an_unknown_user_costs_as_much_as_a_wrong_password(hasher: PasswordHasher) -> None:
    """Each case runs one Argon2 verification; processor time is independent of waiting."""
    stored = await hasher.hash(GOOD)
    rounds = [
        [await _processor_seconds(hasher.verify(password, compared)) for password, compared in cases]
        for cases in [[("wrong", stored), ("wrong", None), ("x" * 5000, stored)]] * 5
    ]
    known, unknown, overlong = (statistics.median(column) for column in zip(*rounds, strict=True))
    assert 0.5 < unknown / known < 2
    assert 0.5 < overlong / known < 2


async def test_work_beyond_the_queue_is_rejected_at_once(make_hasher: Callable[[int, int], PasswordHasher]) -> None:
    """With one slot and two waiting callers, two of five log-ins raise HashingBusy and the others complete."""
    hasher = make_hasher(1, 2)
    results = await asyncio.gather(*(hasher.verify("x", None) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [bool, bool, bool, HashingBusy, HashingBusy]
    assert isinstance(results[-1], HashingBusy)
    assert results[-1].retry_after_s >= 1
    assert not await hasher.verify("x", None)


async def test_each_slot_runs_one_hash(make_hasher: Callable[[int, int], PasswordHasher]) -> None:
    """With two slots and no waiting callers allowed, a third hash is rejected."""
    hasher = make_hasher(2, 0)
    results = await asyncio.gather(*(hasher.hash(GOOD) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [str, str, HashingBusy]


async def test_a_cancelled_caller_keeps_the_slot_until_the_work_ends(
    make_hasher: Callable[[int, int], PasswordHasher],
) -> None:
    """Cancelled log-ins cannot accumulate threads, and the slot is free again when the hash is done."""
    hasher = make_hasher(1, 0)
    cancelled = asyncio.create_task(hasher.hash(GOOD))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(HashingBusy):
        await hasher.hash(GOOD)
    async with asyncio.timeout(30):
        while True:
            try:
                assert await hasher.hash(GOOD)
                break
            except HashingBusy:
                await asyncio.sleep(0.005)


async def test_a_cancelled_waiting_caller_leaves_the_queue(make_hasher: Callable[[int, int], PasswordHasher]) -> None:
    """Cancelling a waiting caller lets another one wait."""
    hasher = make_hasher(1, 1)
    running, waiting = (asyncio.create_task(hasher.hash(GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert await hasher.hash(GOOD)
    assert await running


async def test_closing_ends_the_threads() -> None:
    """After `close` no thread of the hasher is alive, even if a hash was still running."""
    before = set(threading.enumerate())
    hasher = PasswordHasher(concurrency=2)
    assert await hasher.hash(GOOD)
    running = asyncio.create_task(hasher.hash(GOOD))
    await asyncio.sleep(0)
    assert set(threading.enumerate()) > before
    hasher.close()
    assert set(threading.enumerate()) == before
    assert await running


@pytest.mark.parametrize(
    "password",
    [
        "",
        "tiny",
        "eleven char",
        "x" * 1025,
        "passwordpassword",
        "PassWord1234",
        "AdministratoR",
        "correcthorsebatterystaple",
        "contraseña123",
        "aaaaaaaaaaaa",
        "abcabcabcabcabc",
        "Summer!Summer!",
        "            ",
        "abcdefghijklm",
        "zyxwvutsrqponm",
        "QWERTYUIOPAS",
        "098765432109",
        "1qaz2wsx3edc4rfv",
        "the.owner@example.org",
        "The.Owner@Example.org",
    ],
)
def test_an_easily_guessed_password_is_rejected(password: str) -> None:
    """Short, overlong, common and repetitive passwords, keyboard runs and the user's own name are rejected."""
    with pytest.raises(PasswordRefused) as refused:
        check_password_policy(password, "the.owner@example.org")
    assert not password.strip() or password not in str(refused.value)


@pytest.mark.parametrize(
    "password", ["twelve chars", GOOD, "x7" * 63 + "ab", "ж" * 127 + "a", "a" * 1023 + "b", "\U0001f600 emoji pass"]
)
def test_a_long_password_is_accepted(password: str) -> None:
    """Passwords of 12 to 1024 of any characters are accepted."""
    check_password_policy(password, "ada")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40), st.text(max_size=40))
def test_the_policy_decides_on_any_text(password: str, name: str) -> None:
    """Any text is accepted or rejected, and an accepted password has at least 12 characters."""
    try:
        check_password_policy(password, name)
    except PasswordRefused:
        return
    assert len(password) >= 12


def test_the_common_passwords_need_their_list() -> None:
    """Each listed password would pass the other rules: it is long enough, case-folded and no pattern."""
    words = COMMON_PASSWORDS_FILE.read_text(encoding="utf-8").split()
    assert len(words) > 300
    assert words == sorted(set(words))
    assert all(len(word) >= 12 and word == word.casefold() and not is_pattern(word) for word in words)
    assert all(re.fullmatch(r"\S+", word) for word in words)
