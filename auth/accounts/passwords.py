"""Passwords: which ones are taken, and how they are kept (Argon2id by way of passlib)."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from passlib.context import CryptContext

from auth.errors import HashingBusy, PasswordRefused

MIN_LENGTH = 12
MAX_LENGTH = 1024

_COMMON = Path(__file__).with_name("common_passwords.txt")
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789" * 3,
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
)

_T = TypeVar("_T")


def check_password_policy(password: str, name: str) -> None:
    """Refuse what is guessed first: NIST SP 800-63B, section 5.1.1.2, with 12 characters as the least.

    Raises PasswordRefused.
    """
    if len(password) < MIN_LENGTH:
        raise PasswordRefused(f"The password is too short. Use at least {MIN_LENGTH} characters.")
    if len(password) > MAX_LENGTH:
        raise PasswordRefused(f"The password is too long. Use at most {MAX_LENGTH} characters.")
    folded = password.casefold()
    if folded == name.casefold() or folded in _common_passwords() or _is_pattern(folded):
        raise PasswordRefused(
            "The password is easy to guess. Choose several unrelated words, or let a manager make it."
        )


@cache
def _common_passwords() -> frozenset[str]:
    return frozenset(_COMMON.read_text(encoding="utf-8").split())


def _is_pattern(text: str) -> bool:
    """Whether the text is one part repeated, or a run along the alphabet, the digits or the keyboard."""
    repeated = text in (text + text)[1:-1]
    return repeated or any(text in run or text in run[::-1] for run in _RUNS)


class PasswordHasher:
    """Argon2id with 19456 KiB, 2 passes and 1 lane: the least that the OWASP cheat sheet advises.

    At most `concurrency` hashes are computed at once, in threads of low priority; at most `max_waiting` callers wait
    for their turn.
    """

    def __init__(self, concurrency: int = 2, max_waiting: int = 16) -> None:
        self._context = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=19_456,
            argon2__time_cost=2,
            argon2__parallelism=1,
        )
        self._threads = ThreadPoolExecutor(concurrency, "password", _yield_to_others)
        self._slots = asyncio.Semaphore(concurrency)
        self._max_waiting = max_waiting
        self._waiting = 0
        # What an unknown user is checked against. Made here, or the first such login would take longer.
        self._nobody = self._context.hash(secrets.token_bytes(16))

    async def hash(self, password: str) -> str:
        """Return the hash with its parameters and salt. Raises HashingBusy."""
        return await self._in_turn(lambda: self._context.hash(_secret(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Compare with a stored hash; None stands for an unknown user and takes as long. Raises HashingBusy."""
        if len(password) > MAX_LENGTH:  # no such password can have been set
            password, stored = "", None
        matches = await self._in_turn(lambda: self._context.verify(_secret(password), stored or self._nobody))
        return matches and stored is not None

    async def _in_turn(self, job: Callable[[], _T]) -> _T:
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise HashingBusy("Too many logins at the moment. Try again in a second.", retry_after_s=1)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, job)
        # A caller who goes away leaves the thread working: the slot is free only when it ends.
        running.add_done_callback(lambda _: self._slots.release())
        return await asyncio.shield(running)


def _yield_to_others() -> None:
    """Let a flood of log-ins take the processor time that predictions leave: Linux keeps a priority a thread."""
    os.setpriority(os.PRIO_PROCESS, 0, 10)


def _secret(password: str) -> bytes:
    """At most 4096 bytes, which is passlib's limit; a lone surrogate has bytes too."""
    return password.encode("utf-8", "surrogatepass")
