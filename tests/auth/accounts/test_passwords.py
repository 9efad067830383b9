"""Password hashing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest
from argon2 import PasswordHasher as Argon2
from argon2 import Type, extract_parameters

from auth.accounts.passwords import (
    MAX_LENGTH,
    PasswordHasher,
    Verification,
    check_password_policy,
    normalise_password,
)
from auth.errors import HashingBusy, PasswordRefused
from tests.auth.accounts.hashing import matches, measure_costs
from tests.support.polling import PATIENCE_S

GOOD = "walnut ferry quiet lamp"


@pytest.fixture
def make_hasher() -> Iterator[Callable[[int, int], PasswordHasher]]:
    """A factory of hashers, with a concurrency and a maximum of waiting callers, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda concurrency, max_waiting: stack.enter_context(closing(PasswordHasher(concurrency, max_waiting)))


@pytest.fixture
def held_hash(make_hasher: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:  # noqa: ARG001
    """An event without which no new password is hashed: its thread waits for it. It is set before the hashers close."""
    released = threading.Event()

    def normalise_when_released(password: str) -> str:
        if password == GOOD:
            released.wait()
        return normalise_password(password)

    monkeypatch.setattr("auth.accounts.passwords.normalise_password", normalise_when_released)
    yield released
    released.set()


async def test_a_hash_is_argon2id_with_the_documented_cost(hasher: PasswordHasher) -> None:
    """Hashes are Argon2id, 19456 KiB, 2 passes, 1 lane, each with its own salt of 16 bytes."""
    first, second = await hasher.hash(GOOD), await hasher.hash(GOOD)
    found = extract_parameters(first)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19_456, 2, 1)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert found.salt_len == 16
    assert first != second


async def test_another_implementation_verifies_a_hash(hasher: PasswordHasher) -> None:
    """Nothing is added to the password before hashing; it is only normalised."""
    assert Argon2().verify(await hasher.hash(GOOD), GOOD)
    assert Argon2().verify(await hasher.hash("U\u0308ber \uff17 \ufb01elds"), "\u00dcber 7 fields")


# The same password as different systems send it: composed, decomposed, and with a full-width character.
COMPOSED, DECOMPOSED, WIDE = "caf\u00e9 walnut ferry", "cafe\u0301 walnut ferry", "\uff43af\u00e9 walnut ferry"


@pytest.mark.parametrize("entered", [COMPOSED, DECOMPOSED, WIDE], ids=["composed", "decomposed", "wide"])
async def test_equivalent_forms_of_a_password_match(hasher: PasswordHasher, entered: str) -> None:
    """A password matches in every form, whichever form it was set in, and its hash needs no replacement."""
    for chosen in (COMPOSED, DECOMPOSED, WIDE):
        assert await hasher.verify(entered, await hasher.hash(chosen)) == Verification(True)


@pytest.mark.parametrize("stored", [DECOMPOSED, WIDE], ids=["decomposed", "wide"])
async def test_a_hash_of_release_0_1_0_is_replaced(hasher: PasswordHasher, stored: str) -> None:
    """A password that was hashed unnormalised matches, and its replacement hash is of the normalised form."""
    earlier = Argon2().hash(stored)
    verification = await hasher.verify(stored, earlier)
    assert verification.matches
    assert verification.replacement is not None
    assert Argon2().verify(verification.replacement, COMPOSED)
    assert verification.replacement not in repr(verification)
    assert not await matches(hasher, stored + "x", earlier)


async def test_a_decomposed_hash_of_release_0_1_0_matches_composed_input(hasher: PasswordHasher) -> None:
    """A password that was hashed in macOS's decomposed form is accepted in the composed form of other systems."""
    assert (await hasher.verify(COMPOSED, Argon2().hash(DECOMPOSED))).replacement is not None


async def test_lengths_are_counted_after_normalisation(hasher: PasswordHasher) -> None:
    """The minimum and maximum length apply to the normalised password, not to the code points sent."""
    for character, sent in (("\u00e9", "e\u0301"), ("\u1f82", "\u03b1\u0313\u0300\u0345")):
        stored = await hasher.hash(character * MAX_LENGTH)
        assert await matches(hasher, sent * MAX_LENGTH, stored)
        assert not await matches(hasher, sent * (MAX_LENGTH - 1), stored)
        check_password_policy("x" + sent * (MAX_LENGTH - 1), "ada")
        with pytest.raises(PasswordRefused, match="too long"):
            check_password_policy("x" + sent * MAX_LENGTH, "ada")
    with pytest.raises(PasswordRefused, match="too short"):
        check_password_policy("e\u0301" * 11, "ada")
    with pytest.raises(PasswordRefused, match="too long"):
        check_password_policy("\ufdfa" * 100, "ada")  # each ligature normalises to eighteen characters


async def test_an_ambiguous_password_costs_the_same_for_every_user(hasher: PasswordHasher) -> None:
    """A password with two forms takes two verifications, whether or not the user exists."""
    stored = await hasher.hash(GOOD)
    cases = (DECOMPOSED, stored), (DECOMPOSED, None), (GOOD[1:], stored)
    known, unknown, plain = await measure_costs(*(partial(hasher.verify, *case) for case in cases))
    assert 0.5 < unknown / known < 2
    assert plain < known


async def test_only_the_same_password_matches(hasher: PasswordHasher) -> None:
    """Case, spaces and diacritics matter, and no password matches for an unknown user."""
    stored = await hasher.hash("Über walnut ferry")
    assert await matches(hasher, "Über walnut ferry", stored)
    for wrong in ("", "über walnut ferry", "Über walnut ferry ", "Uber walnut ferry", "Über walnut ferry\0"):
        assert not await matches(hasher, wrong, stored)
    assert not await matches(hasher, "Über walnut ferry", None)


@pytest.mark.parametrize("filler", ["x", "é", "\U0001f600", "\ud800", "\0"])
async def test_a_password_is_never_truncated(hasher: PasswordHasher, filler: str) -> None:
    """Passwords of the maximum length that differ only in the last character do not match."""
    longest = filler * (MAX_LENGTH - 1)
    stored = await hasher.hash(longest + "a")
    assert await matches(hasher, longest + "a", stored)
    assert not await matches(hasher, longest + "b", stored)
    assert not await matches(hasher, longest, stored)


async def test_an_overlong_password_is_wrong(hasher: PasswordHasher) -> None:
    """A login with more than the maximum number of characters fails like any wrong password."""
    assert not await matches(hasher, "x" * 1_000_000, await hasher.hash("x" * MAX_LENGTH))
    assert not await matches(hasher, "x" * 1_000_000, await hasher.hash(""))


async def test_an_unknown_user_costs_as_much_as_a_wrong_password(hasher: PasswordHasher) -> None:
    """A wrong password, an unknown user and an overlong password cost the same processor time."""
    stored = await hasher.hash(GOOD)
    cases = ("wrong", stored), ("wrong", None), ("x" * 5000, stored)
    known, unknown, overlong = await measure_costs(*(partial(hasher.verify, *case) for case in cases))
    assert 0.5 < unknown / known < 2
    assert 0.5 < overlong / known < 2


async def test_work_beyond_the_queue_is_rejected_at_once(make_hasher: Callable[[int, int], PasswordHasher]) -> None:
    """With one slot and two waiting callers, two of five logins raise HashingBusy and the others complete."""
    hasher = make_hasher(1, 2)
    results = await asyncio.gather(*(hasher.verify("x", None) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [Verification] * 3 + [HashingBusy] * 2
    assert isinstance(results[-1], HashingBusy)
    assert results[-1].retry_after_s >= 1
    assert not await matches(hasher, "x", None)


async def test_each_slot_runs_one_hash(make_hasher: Callable[[int, int], PasswordHasher]) -> None:
    """With two slots and no waiting callers allowed, a third hash is rejected."""
    hasher = make_hasher(2, 0)
    results = await asyncio.gather(*(hasher.verify("x", None) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Verification, Verification, HashingBusy]


async def test_new_passwords_leave_threads_to_log_ins(
    make_hasher: Callable[[int, int], PasswordHasher], held_hash: threading.Event
) -> None:
    """New passwords are hashed one at a time, so that logins are not rejected and do not wait for them."""
    hasher = make_hasher(2, 16)
    new = [asyncio.create_task(hasher.hash(GOOD)) for _ in range(17)]
    await asyncio.sleep(0)
    with pytest.raises(HashingBusy):
        await hasher.hash(GOOD)
    async with asyncio.timeout(PATIENCE_S):
        assert not await matches(hasher, "x", None)
    assert not any(task.done() for task in new)
    held_hash.set()
    assert all(await asyncio.gather(*new))


async def test_a_cancelled_caller_keeps_the_slot_until_the_work_ends(
    make_hasher: Callable[[int, int], PasswordHasher], held_hash: threading.Event
) -> None:
    """A cancelled caller's slot stays in use until its hash is done, so that cancelled calls accumulate no threads."""
    hasher = make_hasher(1, 0)
    cancelled = asyncio.create_task(hasher.hash(GOOD))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(HashingBusy):
        await hasher.hash(GOOD)
    held_hash.set()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert await hasher.hash(GOOD)
                break
            except HashingBusy:
                await asyncio.sleep(0.005)


async def test_a_cancelled_caller_delays_other_new_passwords_until_its_hash_is_done(
    make_hasher: Callable[[int, int], PasswordHasher], held_hash: threading.Event
) -> None:
    """New passwords are hashed one at a time even if a caller is cancelled, so that a thread remains for logins."""
    hasher = make_hasher(2, 16)
    cancelled, *others = [asyncio.create_task(hasher.hash(GOOD)) for _ in range(3)]
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            assert not await matches(hasher, "x", None)
    assert not any(task.done() for task in others)
    held_hash.set()
    assert all(await asyncio.gather(*others))


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
    assert set(threading.enumerate()) - before
    hasher.close()
    assert set(threading.enumerate()) <= before  # a thread of an earlier test may have ended meanwhile
    assert await running
