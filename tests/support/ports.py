"""TCP ports on loopback for servers that tests start."""

from __future__ import annotations

import secrets
import socket

# Below the ephemeral ports of Linux (32768 and up): no outgoing connection takes one of these before the server binds.
_PORTS = range(15_000, 32_000)
_ATTEMPTS = 100


def free_port() -> int:
    """A port on loopback that no process listens on now. Raises OSError after a hundred ports in use."""
    for _ in range(_ATTEMPTS):
        port = secrets.choice(_PORTS)  # not `random`, which pytest-randomly seeds alike in parallel processes
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"{_ATTEMPTS} ports between {_PORTS.start} and {_PORTS.stop} are in use")
