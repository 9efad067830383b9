"""Finds the gateways that run in this home: each keeps a locked file with its address and its issuer.

A lock ends with the process that holds it, so a gateway that was killed leaves an unlocked file, which is ignored.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from api.settings import home_folder

_FOLDER = Path("var/gateways")


class RunningGateway(Struct, frozen=True):
    """`url` reaches the gateway from this machine; `issuer` is the `iss` of its access tokens."""

    url: str
    issuer: str


@contextmanager
def announce(gateway: RunningGateway, port: int) -> Iterator[None]:
    """Let commands find the gateway while it runs. Does nothing in a home that cannot be written to."""
    path = home_folder() / _FOLDER / f"{port}.json"
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(gateway)).encode())
    except OSError:
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def find_gateways() -> list[RunningGateway]:
    """Return the gateways that run in this home."""
    gateways = []
    for path in sorted((home_folder() / _FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, TypeError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                gateways.append(RunningGateway(**json.load(file)))
    return gateways


def find_gateway(port: int) -> RunningGateway | None:
    """Return the gateway of this home that serves `port`, or else the only one that runs."""
    gateways = find_gateways()
    by_port = [gateway for gateway in gateways if gateway.url.endswith(f":{port}")]
    return next(iter(by_port or (gateways if len(gateways) == 1 else [])), None)
