"""Builds a prepared copy in a subprocess, within the memory budget."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from model.errors import ImageTooLargeHere, MemoryFull
from model.serving.memory_budget import MemoryBudget

BUILD_BYTES = 160 << 20
"""Peak memory of the process that builds a copy. Measured: 168 MB, of which 10 MB are library pages."""

RETRY_S = 5.0
BUILD_LIMIT_S = 300.0
_CALLER = "preparation"  # in the memory budget; no principal has this name
# glibc settings for a small process: one arena, and large blocks returned at once. The process gets no other variable,
# and so none of the gateway's secrets.
_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=1048576"}


async def build_within(memory: MemoryBudget, job: bytes) -> str:
    """Build the copy as soon as the budget has enough memory. Returns what went wrong, or "" if nothing did."""
    try:
        async with reserve_when_free(memory, BUILD_BYTES):
            return await _build(job)
    except ImageTooLargeHere:
        return "this machine has too little memory; run `atalaya models prepare` while the gateway is stopped"


@asynccontextmanager
async def reserve_when_free(memory: MemoryBudget, amount: int) -> AsyncIterator[None]:
    """Reserve `amount` bytes as soon as images leave that much. Raises ImageTooLargeHere if the budget is smaller.

    Each attempt has its own reservation: the budget derives Retry-After from how long reservations last.
    """
    while True:
        async with memory.reserve(0, _CALLER) as reservation:
            try:
                await reservation.resize(amount, while_waiting=0)
            except MemoryFull:
                pass
            else:
                yield
                return
        await asyncio.sleep(RETRY_S)


async def _build(job: bytes) -> str:
    """Build the copy in a subprocess. Returns what went wrong, or "" if nothing did.

    The subprocess has its own session, so that Ctrl-C reaches only the gateway, which then kills the subprocess.
    """
    command, pipe = (sys.executable, "-m", "model.backends.prepared"), asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stderr=pipe, env=_ENVIRONMENT, start_new_session=True
        )
    except OSError as error:  # such as the limit on processes
        return f"the process that builds it cannot start: {error.strerror or error}"
    try:
        async with asyncio.timeout(BUILD_LIMIT_S):
            _, errors = await process.communicate(job)
    except TimeoutError:
        return f"the build took more than {BUILD_LIMIT_S:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if not process.returncode:
        return ""
    return errors.decode(errors="replace").strip() or f"the process that builds it ended with {process.returncode}"
