"""A load generator that uses little processor time: each connection sends the same request again and again."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class LoadResults:
    """The results of a run of `seconds`.

    `durations` has the seconds of every response, `prediction_durations` those of predictions only, and `ids` the ids
    of these predictions, if the server gives them ids. `interrupted` counts requests whose connection ended before the
    response.
    """

    durations: list[float] = field(default_factory=list)
    prediction_durations: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    interrupted: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Predictions per second."""
        return self.statuses[200] / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the durations of predictions, in milliseconds; NaN without predictions."""
        ordered = sorted(self.prediction_durations)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000 if ordered else float("nan")


def build_request(credential: str, image: Path, route: str = "/v1/predictions") -> bytes:
    """Return a request to the gateway with the JPEG image as its body."""
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "image/jpeg"}
    return encode_request(route, image.read_bytes(), headers)


def encode_request(route: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return an HTTP request, ready to be written to a socket."""
    lines = [f"POST {route} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def drive(
    port: int, request: bytes, connections: int, seconds: float, reconnect: bool = False, rate: float = math.inf
) -> LoadResults:
    """Send the request over that many connections until `seconds` have passed, but at least once over each.

    With `reconnect`, a connection that ends is opened again. All connections together send at most `rate` requests per
    second, evenly spread.
    """
    gc.collect()
    gc.freeze()  # a collection of all modules would pause this process for a tenth of a second or more
    results, started = LoadResults(), time.perf_counter()
    interval_s = connections / rate

    async def run_connection(index: int) -> None:
        due = started + interval_s * index / connections
        is_first = due < started + seconds

        async def wait_until_due() -> bool:
            nonlocal due, is_first
            await asyncio.sleep(due - time.perf_counter())
            due = max(due + interval_s, time.perf_counter())
            is_needed, is_first = is_first, False  # a busy machine may pause this process for `seconds`
            return is_needed or time.perf_counter() < started + seconds

        await _send_repeatedly(port, request, wait_until_due, results, reconnect)

    try:
        await asyncio.gather(*map(run_connection, range(connections)))
    finally:
        gc.unfreeze()
    results.seconds = time.perf_counter() - started
    return results


async def _send_repeatedly(
    port: int, request: bytes, wait_until_due: Callable[[], Awaitable[bool]], results: LoadResults, reconnect: bool
) -> None:
    """Send the request whenever it is due, until `wait_until_due` returns False."""
    while await wait_until_due():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not reconnect:
                raise
            await asyncio.sleep(0.01)
            continue
        try:
            while await _exchange(reader, writer, request, results):
                if not await wait_until_due():
                    return
        except (OSError, asyncio.IncompleteReadError):
            results.interrupted += 1
            if not reconnect:
                return
        finally:
            writer.close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, results: LoadResults
) -> bool:
    """Send one request, and record its response in `results`; return whether the connection stays open."""
    started = time.perf_counter()
    writer.write(request)
    lines, body = await _read_response(reader)
    duration = time.perf_counter() - started
    status = int(lines[0][9:12])
    results.statuses[status] += 1
    results.durations.append(duration)
    if status == 200:
        results.prediction_durations.append(duration)
        if prediction_id := json.loads(body).get("id"):
            results.ids.append(prediction_id)
    return b"connection: close" not in lines


async def send_once(port: int, request: bytes) -> Any:
    """Send the request on a connection of its own, and return the JSON document of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    _, body = await _read_response(reader)
    writer.close()
    return json.loads(body)


async def _read_response(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """Return the lines of the head, in lower case, and the body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    return lines, await reader.readexactly(_read_content_length(lines))


def _read_content_length(lines: Sequence[bytes]) -> int:
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
