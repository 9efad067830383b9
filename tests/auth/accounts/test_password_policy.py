"""The password policy."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.accounts.passwords import COMMON_PASSWORDS_FILE, check_password_policy, is_pattern, normalise_password
from auth.errors import PasswordRefused

GOOD = "walnut ferry quiet lamp"


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
        "\uff34he.Owner@Example.org",
        "\uff50assword1234",
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
    """Passwords of 12 to 1024 characters of any kind are accepted."""
    check_password_policy(password, "ada")


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_policy_decides_on_any_text(password: str, name: str) -> None:
    """The policy raises only PasswordRefused, and an accepted password has at least 12 characters when normalised."""
    try:
        check_password_policy(password, name)
    except PasswordRefused:
        return
    assert len(normalise_password(password)) >= 12


def test_the_common_passwords_need_their_list() -> None:
    """Each listed password is case-folded and would pass the other rules: it is long enough and not a pattern."""
    words = COMMON_PASSWORDS_FILE.read_text(encoding="utf-8").split()
    assert len(words) > 300
    assert words == sorted(set(words))
    assert all(len(word) >= 12 and word == word.casefold() and not is_pattern(word) for word in words)
    assert all(re.fullmatch(r"\S+", word) for word in words)
