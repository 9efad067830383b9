"""The thread that writes the ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Call = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class WriterThread:
    """Executes calls one after another, and delivers each result to the event loop in one step.

    `ThreadPoolExecutor` needs two futures with locks for a call: 0.1 ms more for each prediction.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Queue a call, and return the future of its result. A call whose future is cancelled early is skipped."""
        if self._thread is None:
            # A daemon, so that it cannot keep a process alive whose start has failed.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((future, function, arguments))
        return future

    def shutdown(self) -> None:
        """Wait until all calls are executed."""
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            if future.cancelled():
                continue
            result, error = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop was closed while the call was executed
                future.get_loop().call_soon_threadsafe(_resolve, future, result, error)
            del call, future, function, arguments, result, error  # keep no references until the next call


def _resolve(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


@contextmanager
def calling_every(interval_s: float, action: Callable[[], object]) -> Iterator[None]:
    """Call `action` on the event loop every `interval_s` seconds until the context ends."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def act() -> None:
        nonlocal timer
        timer = loop.call_later(interval_s, act)
        action()

    timer = loop.call_later(interval_s, act)
    try:
        yield
    finally:
        timer.cancel()
