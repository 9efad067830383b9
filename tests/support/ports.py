"""TCP ports on loopback for servers that tests start."""

from __future__ import annotations

import atexit
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Below the ephemeral ports of Linux (32768 and up): no outgoing connection takes one of these before the server binds.
_PORTS = range(15_000, 32_000)
_BLOCK = 100
_lock = threading.Lock()


def free_port() -> int:
    """Return an unused port on loopback, which no other call or test process gets while this process runs.

    Raises OSError if there is none left.
    """
    with _lock:
        for port in _unused:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
    raise OSError(f"all ports between {_PORTS.start} and {_PORTS.stop} are in use")


def _claim_ports() -> Iterator[int]:
    """Yield the ports of one block after another; a process claims a block by binding its first UDP port."""
    blocks = range(_PORTS.start, _PORTS.stop, _BLOCK)
    # Not `random` itself, which pytest-randomly seeds identically in parallel processes.
    for start in secrets.SystemRandom().sample(blocks, len(blocks)):
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", start))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        yield from range(start + 1, start + _BLOCK)


_unused = _claim_ports()


@contextmanager
def refusing_port() -> Iterator[int]:
    """Yield a port on loopback that refuses connections until the context ends: no other process can listen on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
