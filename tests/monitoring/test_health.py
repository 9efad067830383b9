from __future__ import annotations

import asyncio

from monitoring.health import Health, readiness


async def fine() -> None:
    await asyncio.sleep(0)


async def refused() -> None:
    raise ConnectionRefusedError("password=hunter2 at db.internal")


async def never() -> None:
    await asyncio.Event().wait()


async def test_all_fine() -> None:
    """With every dependency answering the gateway is ready."""
    state = await readiness({"database": fine, "model": fine})
    assert (state.ready, state.checks) == (True, {"database": "ok", "model": "ok"})


async def test_no_checks() -> None:
    """A gateway without dependencies is ready."""
    assert (await readiness({})).ready


async def test_failure_names_the_class_only() -> None:
    """One failure makes it not ready and is told by its class, never by its message."""
    state = await readiness({"database": refused, "model": fine})
    assert (state.ready, state.checks) == (False, {"database": "ConnectionRefusedError", "model": "ok"})


async def test_slow_check_times_out() -> None:
    """A check that does not answer in time is a TimeoutError, and several wait side by side."""
    started = asyncio.get_running_loop().time()
    state = await readiness({f"slow{n}": never for n in range(20)} | {"model": fine}, timeout_s=0.05)
    assert not state.ready
    assert state.checks == {f"slow{n}": "TimeoutError" for n in range(20)} | {"model": "ok"}
    assert asyncio.get_running_loop().time() - started < 20 * 0.05


async def test_cancelling_passes_through() -> None:
    """A caller who goes away stops the checks; cancelling is no failed check."""
    task = asyncio.create_task(readiness({"database": never}, timeout_s=60))
    await asyncio.sleep(0)
    task.cancel()
    assert await asyncio.gather(task, return_exceptions=True) != []
    assert task.cancelled()


async def test_a_crowd_that_asks_is_one_question() -> None:
    """Whoever asks at about the same time hears the same answer; later it is asked for anew."""
    asked = 0

    async def count() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    health = Health({"database": count}, fresh_s=0.1)
    assert all(state.ready for state in await asyncio.gather(*(health.ask() for _ in range(50))))
    await health.ask()
    assert asked == 1
    await asyncio.sleep(0.15)
    gone = asyncio.create_task(health.ask())
    await asyncio.sleep(0)
    gone.cancel()
    assert (await health.ask()).ready
    assert asked == 2
