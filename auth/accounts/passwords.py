"""The password policy, and password hashing with Argon2id (passlib)."""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from passlib.context import CryptContext

from auth.accounts.slots import FairSlots
from auth.errors import HashingBusy, PasswordRefused

# In code points of the normalised password.
MIN_LENGTH = 12
MAX_LENGTH = 1024
_MAX_TYPED_LENGTH = 4 * MAX_LENGTH  # no composed character consists of more than four code points
# Normalising a run of combining marks takes quadratic time, and no language needs longer runs than this (UAX #15,
# Stream-Safe Text Format).
_MAX_MARKS = 30
_NICENESS = 10  # of the hashing threads: predictions have precedence over logins

COMMON_PASSWORDS_FILE = Path(__file__).with_name("common_passwords.txt")
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789" * 3,
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
)

_MEMORY_KIB, _PASSES, _LANES = 19_456, 2, 1

_T = TypeVar("_T")


def check_password_policy(password: str, name: str) -> None:
    """Reject easily guessed passwords (NIST SP 800-63B, section 5.1.1.2), and those under 12 characters.

    Raises PasswordRefused.
    """
    _check_typed(password)
    password = normalise_password(password)
    if len(password) < MIN_LENGTH:
        raise PasswordRefused(f"The password is too short. Use at least {MIN_LENGTH} characters.")
    _check_length(password, MAX_LENGTH)
    folded = password.casefold()
    if folded == name.casefold() or folded in _common_passwords() or is_pattern(folded):
        raise PasswordRefused(
            "The password is easy to guess. Choose several unrelated words, or generate one with a password manager."
        )


def _check_typed(password: str) -> None:
    """Check the limits that apply before a password is normalised. Raises PasswordRefused."""
    _check_length(password, _MAX_TYPED_LENGTH)
    if _has_too_many_marks(password):
        raise PasswordRefused(f"The password has more than {_MAX_MARKS} combining marks in a row. Use fewer.")


def _check_length(password: str, maximum: int) -> None:
    if len(password) > maximum:
        raise PasswordRefused(f"The password is too long. Use at most {MAX_LENGTH} characters.")


def _has_too_many_marks(password: str) -> bool:
    """Return whether more than 30 characters in a row are combining marks or decompose into such marks."""
    marks = 0
    for character in password:
        first = unicodedata.normalize("NFKD", character)[0]  # U+0F73 has no combining class, but consists of two marks
        marks = marks + 1 if unicodedata.combining(first) else 0
        if marks > _MAX_MARKS:
            return True
    return False


def normalise_password(password: str) -> str:
    """Return the form that is hashed: NFKC, as NIST SP 800-63B, section 5.1.1.2, recommends.

    Keyboards and systems encode the same characters differently: macOS may send "e" with an accent as two code points.
    """
    return unicodedata.normalize("NFKC", password)


def _list_forms(password: str) -> list[str]:
    """Return the forms that may have been hashed: the normalised one and, if it differs, the one of release 0.1.0.

    That release hashed passwords as typed. A password that is now typed in normalised form may have been typed with
    decomposed characters then. A password with too many characters or combining marks has no forms.
    """
    try:
        _check_typed(password)
    except PasswordRefused:
        return []
    normalised = normalise_password(password)
    earlier = password if password != normalised else unicodedata.normalize("NFD", password)
    return [form for form in dict.fromkeys((normalised, earlier)) if len(form) <= MAX_LENGTH]


@cache
def _common_passwords() -> frozenset[str]:
    return frozenset(COMMON_PASSWORDS_FILE.read_text(encoding="utf-8").split())


def is_pattern(text: str) -> bool:
    """Return whether the text repeats one part, or follows the alphabet, the digits or a keyboard pattern."""
    repeated = text in (text + text)[1:-1]
    return repeated or any(text in run or text in run[::-1] for run in _RUNS)


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a password matches a hash; if it matches an outdated hash, `replacement` is a current one."""

    matches: bool
    replacement: str | None = field(default=None, repr=False)


class PasswordHasher:
    """Argon2id with 19456 KiB, 2 passes and 1 lane: the minimum that the OWASP cheat sheet recommends.

    At most `concurrency` hashes are computed at a time, in low-priority threads; at most `max_waiting` callers wait
    for a free thread. New passwords are hashed one at a time, so that they leave threads for logins. Call `close` when
    the hasher is no longer needed.
    """

    def __init__(self, concurrency: int = 2, max_waiting: int = 16) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=_MEMORY_KIB,
            argon2__time_cost=_PASSES,
            argon2__parallelism=_LANES,
        )
        self._threads = ThreadPoolExecutor(concurrency, "password", _lower_thread_priority)
        self._new_passwords = FairSlots(1, max_waiting)
        self._slots = asyncio.Semaphore(concurrency)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._unknown_user_hash = _make_unmatched_hash()  # verified for unknown users

    def close(self) -> None:
        """Wait for the running hashes (about 0.1 s) and end the threads."""
        self._threads.shutdown()

    async def hash(self, password: str) -> str:
        """Return the hash of the normalised password, with its parameters and salt. Raises HashingBusy."""
        await self._new_passwords.take()
        try:
            running = await self._start(lambda: self._context.hash(_encode(normalise_password(password))))
        except BaseException:
            self._new_passwords.release()
            raise
        running.add_done_callback(lambda _: self._new_passwords.release())
        return await asyncio.shield(running)

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        """Compare a password with a hash. Pass None for an unknown user: it takes as long. Raises HashingBusy.

        A password with two forms takes twice as long to reject, and three times as long if its outdated hash matches:
        then a current hash is computed too.
        """
        forms = _list_forms(password)
        if not forms:
            forms, password_hash = [""], None
        return await asyncio.shield(await self._start(lambda: self._compare(forms, password_hash)))

    def _compare(self, forms: list[str], password_hash: str | None) -> Verification:
        expected_hash = password_hash or self._unknown_user_hash
        for form in forms:
            if self._context.verify(_encode(form), expected_hash) and password_hash is not None:
                return Verification(True, None if form == forms[0] else self._context.hash(_encode(forms[0])))
        return Verification(False)

    async def _start(self, job: Callable[[], _T]) -> asyncio.Future[_T]:
        """Wait for a free thread and start the job. A job that was started continues when its caller is cancelled.

        Raises HashingBusy.
        """
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise HashingBusy
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, job)
        running.add_done_callback(lambda _: self._slots.release())
        return running


def _lower_thread_priority() -> None:
    """On Linux this sets the priority of the calling thread only."""
    current = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(current, _NICENESS))  # only a privileged process may raise its priority


def _make_unmatched_hash() -> str:
    """Return a hash that matches no known password and takes as long to verify as any other.

    It consists of random bytes, because computing a real hash would delay the start.
    """
    salt, digest = (b64encode(secrets.token_bytes(length)).rstrip(b"=").decode() for length in (16, 32))
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${salt}${digest}"


def _encode(password: str) -> bytes:
    """Return at most 4096 bytes, which is passlib's limit; lone surrogates are encoded too."""
    return password.encode("utf-8", "surrogatepass")
