"""The thread that writes the ledger."""

from __future__ import annotations

import asyncio
import threading

import pytest

from monitoring.ledger.writing.thread import WriterThread


async def test_calls_are_executed_in_order_in_one_other_thread() -> None:
    """Calls are executed in order in one thread other than the event loop's; each caller gets its result or error."""
    writer, executed = WriterThread("writer"), list[tuple[int, str]]()

    def divide(number: int) -> float:
        executed.append((number, threading.current_thread().name))
        return 6 / number

    results = await asyncio.gather(*(writer.call(divide, number) for number in (3, 0, 2)), return_exceptions=True)
    writer.shutdown()
    assert executed == [(3, "writer"), (0, "writer"), (2, "writer")]
    assert results[0] == 2
    assert isinstance(results[1], ZeroDivisionError)
    assert results[2] == 3


async def test_a_cancelled_call_is_left_out_or_finished() -> None:
    """A call that is cancelled while waiting is not executed; a running one is finished; later ones are executed."""
    writer, executed = WriterThread("writer"), list[str]()
    began, released = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        released.wait()
        executed.append("begun")

    running, waiting = writer.call(wait), writer.call(executed.append, "cancelled")
    await asyncio.to_thread(began.wait)
    running.cancel()
    waiting.cancel()
    released.set()
    await writer.call(executed.append, "later")
    writer.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert executed == ["begun", "later"]


async def test_shutdown_waits_for_all_calls() -> None:
    """All calls are executed when `shutdown` returns, and a writer that was never called shuts down at once."""
    writer, executed = WriterThread("writer"), list[int]()
    calls = [writer.call(executed.append, number) for number in range(100)]
    writer.shutdown()
    assert executed == list(range(100))
    await asyncio.gather(*calls)
    WriterThread("unused").shutdown()
