"""A cheap load generator: persistent connections, each of which sends the same request again and again."""

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
    """The responses to a load: durations in seconds of all of them and of the successful ones, statuses and ids.

    `cut` counts requests whose connection ended before the response.
    """

    durations: list[float] = field(default_factory=list)
    successful: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    cut: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Successful predictions per second."""
        return self.statuses[200] / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the durations of successful predictions; NaN if there were none."""
        ordered = sorted(self.successful)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000 if ordered else float("nan")


def build_request(credential: str, image: Path, route: str = "/v1/predictions") -> bytes:
    """A complete request with the image as its body."""
    body = image.read_bytes()
    head = (
        f"POST {route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def drive(
    port: int, request: bytes, connections: int, seconds: float, again: bool = False, rate: float = math.inf
) -> Load:
    """Send the request on so many connections for so many seconds; with `again` replace connections that end.

    All connections together send at most `rate` requests per second.
    """
    load, began = Load(), time.perf_counter()
    every_s = connections / rate

    async def connection(index: int) -> None:
        due = began + every_s * index / connections

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
    """Send a request each time that `turn` returns true, until it returns false."""
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
    """Send one request, record its response, and return whether the connection stays open."""
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
        load.successful.append(took)
        load.ids.append(json.loads(body)["id"])
    return b"connection: close" not in lines


def _length(lines: Sequence[bytes]) -> int:
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
