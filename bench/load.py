"""A load generator that costs little: connections that are kept open, each sending the same request over and over."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Load:
    """What was answered: one duration in seconds a request, statuses, and the ids of predictions.

    `cut` counts requests whose connection ended before their answer.
    """

    durations: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    cut: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answered predictions a second."""
        return self.statuses[200] / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Of the durations of answered predictions."""
        ordered = sorted(self.answered)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000 if ordered else float("nan")


def request_of(credential: str, image: Path, route: str = "/v1/predictions") -> bytes:
    """A whole request with the image as its body."""
    body = image.read_bytes()
    head = (
        f"POST {route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def drive(
    port: int, request: bytes, connections: int, seconds: float, again: bool = False, rate: float = math.inf
) -> Load:
    """Send the request on so many connections for so long; with `again` open one anew where one ends.

    All connections together send at most `rate` requests a second.
    """
    load, began = Load(), time.perf_counter()
    every_s = connections / rate

    async def connection(place: int) -> None:
        due = began + every_s * place / connections

        async def turn() -> bool:
            nonlocal due
            await asyncio.sleep(due - time.perf_counter())
            due = max(due + every_s, time.perf_counter())
            return time.perf_counter() < began + seconds

        await _connection(port, request, turn, load, again)

    await asyncio.gather(*map(connection, range(connections)))
    load.seconds = time.perf_counter() - began
    return load


async def _connection(port: int, request: bytes, turn: Callable[[], Awaitable[bool]], load: Load, again: bool) -> None:
    """Send whenever it is its turn, until it is told that there are no more."""
    while await turn():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not again:
                raise
            await asyncio.sleep(0.01)
            continue
        try:
            while await _exchange(reader, writer, request, load):
                if not await turn():
                    return
        except (OSError, asyncio.IncompleteReadError):
            load.cut += 1
            if not again:
                return
        finally:
            writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, load: Load) -> bool:
    """One request and its answer; whether the connection stays open."""
    began = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    body = await reader.readexactly(_length(lines))
    took = time.perf_counter() - began
    status = int(head[9:12])
    load.statuses[status] += 1
    load.durations.append(took)
    if status == 200:
        load.answered.append(took)
        load.ids.append(json.loads(body)["id"])
    return b"connection: close" not in lines


def _length(lines: Sequence[bytes]) -> int:
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
