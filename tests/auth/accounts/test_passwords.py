from __future__ import annotations

import asyncio
import re
import statistics
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher as Argon2
from argon2 import Type, extract_parameters
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.accounts.passwords import MAX_LENGTH, PasswordHasher, check_password_policy
from auth.errors import HashingBusy, PasswordRefused

GOOD = "walnut ferry quiet lamp"


async def test_a_stored_hash_is_argon2id_with_the_stated_cost() -> None:
    """Hashes are Argon2id, 19456 KiB, 2 passes, 1 lane, each with its own salt of 16 bytes."""
    hasher = PasswordHasher()
    first, second = await hasher.hash(GOOD), await hasher.hash(GOOD)
    found = extract_parameters(first)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19_456, 2, 1)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert found.salt_len == 16
    assert first != second


async def test_a_hash_can_be_checked_by_another_implementation() -> None:
    """Nothing is added to the password before hashing."""
    assert Argon2().verify(await PasswordHasher().hash(GOOD), GOOD)


async def test_only_the_same_password_matches() -> None:
    """Case, spaces and Unicode forms matter; an unknown user never matches."""
    hasher = PasswordHasher()
    stored = await hasher.hash("Über walnut ferry")
    assert await hasher.verify("Über walnut ferry", stored)
    for wrong in ("", "über walnut ferry", "Über walnut ferry ", "U\u0308ber walnut ferry", "Über walnut ferry\0"):
        assert not await hasher.verify(wrong, stored)
    assert not await hasher.verify("Über walnut ferry", None)


@pytest.mark.parametrize("filler", ["x", "é", "\U0001f600", "\ud800", "\0"])
async def test_a_password_is_never_truncated(filler: str) -> None:
    """Passwords of the greatest length differ in their last character."""
    hasher = PasswordHasher()
    longest = filler * (MAX_LENGTH - 1)
    stored = await hasher.hash(longest + "a")
    assert await hasher.verify(longest + "a", stored)
    assert not await hasher.verify(longest + "b", stored)
    assert not await hasher.verify(longest, stored)


async def test_an_endless_password_is_just_wrong() -> None:
    """A login with more than the longest password fails like any other."""
    hasher = PasswordHasher()
    assert not await hasher.verify("x" * 1_000_000, await hasher.hash("x" * MAX_LENGTH))
    assert not await hasher.verify("x" * 1_000_000, await hasher.hash(""))


async def _processor_seconds(work: Awaitable[object]) -> float:
    started = time.process_time()
    await work
    return time.process_time() - started


async def test_an_unknown_user_costs_as_much_as_a_wrong_password() -> None:
    """Both run one Argon2 verification: processor time, which waits do not disturb, is alike."""
    hasher = PasswordHasher()
    stored = await hasher.hash(GOOD)
    pairs = [
        [await _processor_seconds(hasher.verify(password, known)) for password, known in cases]
        for cases in [[("wrong", stored), ("wrong", None), ("x" * 5000, stored)]] * 5
    ]
    known, unknown, endless = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert 0.5 < unknown / known < 2
    assert 0.5 < endless / known < 2


async def test_work_beyond_the_queue_is_refused_at_once() -> None:
    """With one slot and two places to wait, two of five logins are told to come back; the others are served."""
    hasher = PasswordHasher(concurrency=1, max_waiting=2)
    results = await asyncio.gather(*(hasher.verify("x", None) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [bool, bool, bool, HashingBusy, HashingBusy]
    assert isinstance(results[-1], HashingBusy)
    assert results[-1].retry_after_s >= 1
    assert not await hasher.verify("x", None)


async def test_as_many_hashes_run_at_once_as_there_are_slots() -> None:
    """With two slots and nowhere to wait, a third login is refused."""
    hasher = PasswordHasher(concurrency=2, max_waiting=0)
    results = await asyncio.gather(*(hasher.hash(GOOD) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [str, str, HashingBusy]


async def test_a_caller_who_leaves_keeps_the_slot_until_the_work_ends() -> None:
    """Cancelled logins cannot pile up threads, and the slot comes back."""
    hasher = PasswordHasher(concurrency=1, max_waiting=0)
    threads, gate = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(threads)
    threads.submit(gate.wait)
    leaver = asyncio.create_task(hasher.hash(GOOD))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    with pytest.raises(HashingBusy):
        await hasher.hash(GOOD)
    gate.set()
    async with asyncio.timeout(30):
        while True:
            try:
                assert await hasher.hash(GOOD)
                break
            except HashingBusy:
                await asyncio.sleep(0.005)


async def test_a_waiting_caller_who_leaves_gives_up_the_place() -> None:
    """A cancelled wait frees its place in the queue."""
    hasher = PasswordHasher(concurrency=1, max_waiting=1)
    running, waiting = (asyncio.create_task(hasher.hash(GOOD)) for _ in range(2))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert await hasher.hash(GOOD)
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
def test_an_easy_password_is_refused(password: str) -> None:
    """Short, endless, common and repeated passwords, runs along the keyboard and the user's own name are refused."""
    with pytest.raises(PasswordRefused) as refused:
        check_password_policy(password, "the.owner@example.org")
    assert not password.strip() or password not in str(refused.value)


@pytest.mark.parametrize(
    "password", ["twelve chars", GOOD, "x7" * 63 + "ab", "ж" * 127 + "a", "a" * 1023 + "b", "\U0001f600 emoji pass"]
)
def test_a_long_password_is_accepted(password: str) -> None:
    """Any characters are allowed, from 12 of them on, and 128 and more."""
    check_password_policy(password, "ada")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40), st.text(max_size=40))
def test_the_policy_answers_for_any_text(password: str, name: str) -> None:
    """Whatever is typed is taken or refused, and what is taken has at least 12 characters."""
    try:
        check_password_policy(password, name)
    except PasswordRefused:
        return
    assert len(password) >= 12


def test_the_common_passwords_are_in_reach_of_the_policy() -> None:
    """Each listed password would pass without the list: it is long enough and folded."""
    from auth.accounts.passwords import _COMMON, _is_pattern

    words = _COMMON.read_text(encoding="utf-8").split()
    assert len(words) > 300
    assert words == sorted(set(words))
    assert all(len(word) >= 12 and word == word.casefold() and not _is_pattern(word) for word in words)
    assert all(re.fullmatch(r"\S+", word) for word in words)
