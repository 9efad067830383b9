"""Concurrent callers that predict without pause."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.gateway import Gateway
from tests.support.paths import FOREST
from tests.support.polling import PATIENCE_S, wait_until_async

_IMAGE = FOREST.read_bytes()
_CALLERS = 16


@dataclass
class Callers:
    """Sixteen callers; every second one keeps its connection for as long as the gateway allows.

    `outcomes` counts statuses, "gone" when the gateway no longer accepts connections, and "lost: …" when a connection
    ended before the response. `turns` counts the outcomes of each caller.
    """

    port: int
    token: str
    outcomes: Counter[str] = field(default_factory=Counter)
    turns: list[int] = field(default_factory=lambda: [0] * _CALLERS)
    stopping: bool = False

    @property
    def lost(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith("lost"))

    async def run(self, act: Callable[[], object]) -> None:
        """Have the callers predict before, during and after `act`, which runs in a thread."""
        callers = [asyncio.create_task(self._call(number)) for number in range(_CALLERS)]
        await self._wait_for_predictions(_CALLERS * 2)
        try:
            await asyncio.to_thread(act)
            await self._wait_for_predictions(_CALLERS * 2)
        finally:
            self.stopping = True
            await asyncio.wait_for(asyncio.gather(*callers), PATIENCE_S)

    async def _wait_for_predictions(self, more: int) -> None:
        """Wait for `more` predictions, or until the gateway is gone."""
        until = self.outcomes["200"] + more
        await wait_until_async(lambda: self.outcomes["200"] >= until or self.outcomes["gone"])

    async def _call(self, number: int) -> None:
        keep = bool(number % 2)
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                self._count(number, "gone")
                return
            try:
                is_open = True
                while is_open and not self.stopping:
                    status, is_open = await send_prediction(reader, writer, self.token)
                    self._count(number, status)
                    is_open &= keep
            except (OSError, EOFError) as error:
                self._count(number, f"lost: {type(error).__name__}")
            finally:
                writer.close()

    def _count(self, number: int, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.turns[number] += 1


async def send_prediction(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> tuple[str, bool]:
    """Send one prediction; return its status, and whether the connection stays open."""
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: image/jpeg\r\nContent-Length: {len(_IMAGE)}\r\n\r\n"
    writer.write(head.encode() + _IMAGE)
    response = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(response.partition("content-length: ")[2].split()[0]))
    return response.split()[1], "connection: close" not in response


@contextmanager
def running_threads(send: Callable[[threading.Event], None], count: int) -> Iterator[None]:
    """Run `send` in several threads for the duration of the block. It must return once its argument is set."""
    ended = threading.Event()
    threads = [threading.Thread(target=send, args=(ended,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def make_callers(gateway: Gateway) -> Callers:
    return Callers(gateway.port, gateway.token())
