"""Settings of glibc's allocator for a small container.

With its defaults, a gateway that has served a few hundred predictions holds some 60 MB that it does not use: one
arena for each thread, and freed blocks of up to 32 MB that wait for the next request of their size (mallopt(3)).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BLOCK_BYTES = 1 << 20
_MODEL_BLOCK_BYTES = 64 << 10

_lock = threading.Lock()
_loads: set[object] = set()  # in progress


def limit_memory_use() -> None:
    """Use two arenas, and map blocks over 1 MiB directly, so that they are returned when freed.

    Call it before NumPy is imported: it also stops OpenBLAS from starting threads, which the gateway does not use.
    Without glibc, it does only that.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    libc = _load_glibc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE_BLOCK_BYTES)


@contextmanager
def mapping_weights() -> Iterator[None]:
    """Map blocks over 64 KiB directly while the context is open: use it to load the weights of a model.

    Mixed with the small blocks of requests, their memory could not be returned when the model is closed. The setting
    applies to all threads, until the last of several loads ends.
    """
    load = object()
    with _lock:
        _loads.add(load)
        _set_map_threshold(_MODEL_BLOCK_BYTES)
    try:
        yield
    finally:
        with _lock:
            _loads.discard(load)
            if not _loads:
                _set_map_threshold(_LARGE_BLOCK_BYTES)


def _set_map_threshold(amount: int) -> None:
    libc = _load_glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, amount)


def return_free_memory() -> None:
    """Return free pages to the system now. This helps after start-up, which frees much memory."""
    libc = _load_glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    program = ctypes.CDLL(None)
    return program if hasattr(program, "malloc_trim") else None
