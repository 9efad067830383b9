"""The effect of the allocator's settings on the memory of a model."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.requirements import missing

PROGRAM = """
import ctypes
from contextlib import nullcontext
from api.server.allocator import limit_memory_use, mapping_weights, return_free_memory
from monitoring.machine.memory import resident_bytes

limit_memory_use()
libc = ctypes.CDLL(None)
if not hasattr(libc, "mallopt"):
    raise SystemExit(77)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def count_mapped(context):
    with context:
        blocks = [libc.malloc(256 << 10) for _ in range(40)]
    mapped = sum(block & 0xFFF == 0x10 for block in blocks)
    for block in blocks:
        libc.free(block)
    return mapped


print(count_mapped(mapping_weights()), count_mapped(nullcontext()) < 40)
with mapping_weights():
    with mapping_weights():  # a second load, which ends first
        pass
    print(count_mapped(nullcontext()))
"""
NO_GLIBC = 77


def test_weights_have_mappings_of_their_own() -> None:
    """Blocks as large as weights get mappings of their own while any model is opened, and only then."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    if ended.returncode == NO_GLIBC:
        missing("glibc")
    assert ended.stdout == "40 True\n40\n", ended.stderr
