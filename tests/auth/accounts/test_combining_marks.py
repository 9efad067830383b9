"""Passwords with long runs of combining marks, which take quadratic time to normalise."""

from __future__ import annotations

import statistics
import time

import pytest
from argon2 import PasswordHasher as Argon2

from auth.accounts.passwords import PasswordHasher, check_password_policy
from auth.errors import PasswordRefused


async def matches(hasher: PasswordHasher, password: str, password_hash: str) -> bool:
    return (await hasher.verify(password, password_hash)).matches


@pytest.mark.parametrize("marks", ["\u0344\u0323", "\u0f73", "\uff9e\u0f81"], ids=["marks", "two in one", "wide"])
async def test_a_run_of_combining_marks_is_no_password(hasher: PasswordHasher, marks: str) -> None:
    """Up to 30 combining marks in a row are accepted; the policy refuses a longer run, which also matches no hash."""
    longest = "walnut" + (marks * 30)[:30] + " ferry"
    check_password_policy(longest, "ada")
    assert await matches(hasher, longest, await hasher.hash(longest))
    refused = longest.replace(marks, 2 * marks, 1)
    with pytest.raises(PasswordRefused, match="30 combining marks"):
        check_password_policy(refused, "ada")
    assert not await matches(hasher, refused, Argon2().hash(refused))
    assert not await matches(hasher, refused, await hasher.hash(""))


async def test_costly_text_is_refused_without_normalising_it(hasher: PasswordHasher) -> None:
    """Text that takes seconds to normalise is refused within 0.1 s, and costs a log-in as much as a wrong password."""
    costly = "a" + "\u0344" * 16_000 + "\u0323" * 16_000
    for text in (costly, costly[-4096:], "\u0f73" * 4096):
        started = time.process_time()
        with pytest.raises(PasswordRefused):
            check_password_policy(text, "ada")
        assert time.process_time() - started < 0.1
    stored = await hasher.hash("walnut ferry quiet lamp")
    spent: dict[str, list[float]] = {"wrong": [], costly: []}
    for text in [*spent] * 5:
        started = time.process_time()
        await hasher.verify(text, stored)
        spent[text].append(time.process_time() - started)
    assert 0.5 < statistics.median(spent[costly]) / statistics.median(spent["wrong"]) < 2
