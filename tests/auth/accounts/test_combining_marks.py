"""Passwords with long runs of combining marks, which take quadratic time to normalise."""

from __future__ import annotations

import time
import unicodedata
from functools import partial

import pytest
from argon2 import PasswordHasher as Argon2

from auth.accounts.passwords import PasswordHasher, check_password_policy
from auth.errors import PasswordRefused
from tests.auth.accounts.hashing import matches, measure_costs


@pytest.mark.parametrize("marks", ["\u0344\u0323", "\u0f73", "\uff9e\u0f81"], ids=["marks", "two in one", "wide"])
async def test_a_run_of_combining_marks_is_no_password(hasher: PasswordHasher, marks: str) -> None:
    """Up to 30 combining marks in a row are accepted; the policy rejects a longer run, which also matches no hash."""
    longest = "walnut" + (marks * 30)[:30] + " ferry"
    check_password_policy(longest, "ada")
    assert await matches(hasher, longest, await hasher.hash(longest))
    refused = longest.replace(marks, 2 * marks, 1)
    with pytest.raises(PasswordRefused, match="30 combining marks"):
        check_password_policy(refused, "ada")
    assert not await matches(hasher, refused, Argon2().hash(refused))
    assert not await matches(hasher, refused, await hasher.hash(""))


async def test_costly_text_is_rejected_without_normalising_it() -> None:
    """To reject text takes less than a tenth of the processor time of normalising it."""
    for text in ("a" + "\u0344" * 8000 + "\u0323" * 8000, "\u0344" * 2048 + "\u0323" * 2048, "\u0f73" * 4096):
        started = time.process_time()
        unicodedata.normalize("NFKC", text)
        normalising_s = time.process_time() - started
        (refusing_s,) = await measure_costs(partial(_refuse, text))
        assert refusing_s < normalising_s / 10


async def _refuse(text: str) -> None:
    with pytest.raises(PasswordRefused):
        check_password_policy(text, "ada")


async def test_costly_text_costs_a_log_in_as_much_as_a_wrong_password(hasher: PasswordHasher) -> None:
    """A login with text that takes long to normalise costs as much processor time as one with a wrong password."""
    stored = await hasher.hash("walnut ferry quiet lamp")
    costly = "\u0344" * 2048 + "\u0323" * 2048
    wrong_s, costly_s = await measure_costs(
        lambda: hasher.verify("wrong", stored), lambda: hasher.verify(costly, stored)
    )
    assert 0.5 < costly_s / wrong_s < 2
