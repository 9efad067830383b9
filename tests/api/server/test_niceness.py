"""The priorities of a process that was started at a lower priority."""

from __future__ import annotations

import subprocess
import sys

import pytest

HASH = """
import asyncio
from auth.accounts.passwords import PasswordHasher
hasher = PasswordHasher(1, 1)
asyncio.run(hasher.hash("walnut ferry quiet lamp"))
"""
WORK = """
from model.backends.priority import lower_priority
lower_priority()
"""
LIST = """
import os
print(os.nice(0), *(os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("work", [HASH, WORK], ids=["hashing", "inference"])
def test_no_thread_gets_a_higher_priority_than_the_process(work: str) -> None:
    """With `nice -n 15`, as an operator or systemd may start the gateway, all threads have that niceness."""
    command = ["nice", "-n", "15", sys.executable, "-c", work + LIST]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert len(set(done.stdout.split())) == 1, done.stdout
