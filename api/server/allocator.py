"""glibc's allocator, told that this process lives in a small container.

Without it a gateway that has answered a few hundred predictions keeps some 60 MB that it does not use: an
arena a thread, and freed blocks of up to 32 MB that are kept for the next one of their size (mallopt(3)).
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BLOCK_BYTES = 1 << 20


def keep_memory_small() -> None:
    """Two arenas, and blocks over 1 MiB straight from the system and back to it. Does nothing without glibc.

    Before NumPy is imported: its threads for linear algebra, of which none is done here, are not even started.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE_BLOCK_BYTES)


def return_free_memory() -> None:
    """Hand free pages back now: after start-up, whose leavings nothing will fill again."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    program = ctypes.CDLL(None)
    return program if hasattr(program, "malloc_trim") else None
