"""Checking the gateway's dependencies."""

from __future__ import annotations

import asyncio

from monitoring.health import Health, check_readiness


async def succeed() -> None:
    await asyncio.sleep(0)


async def fail() -> None:
    raise ConnectionRefusedError("password=hunter2 at db.internal")


async def hang() -> None:
    await asyncio.Event().wait()


async def test_ready_when_all_checks_succeed() -> None:
    """With all dependencies available the gateway is ready."""
    state = await check_readiness({"database": succeed, "model": succeed})
    assert (state.ready, state.checks) == (True, {"database": "ok", "model": "ok"})


async def test_ready_without_checks() -> None:
    """A gateway without dependencies is ready."""
    assert (await check_readiness({})).ready


async def test_failures_are_reported_by_class() -> None:
    """One failed check makes the gateway not ready; it is reported by its error's class, never by the message."""
    state = await check_readiness({"database": fail, "model": succeed})
    assert (state.ready, state.checks) == (False, {"database": "ConnectionRefusedError", "model": "ok"})


async def test_slow_checks_time_out() -> None:
    """A check that takes too long is reported as TimeoutError, and checks run concurrently."""
    steps: list[str] = []

    async def hang_noted() -> None:
        steps.append("begin")
        try:
            await hang()
        finally:
            steps.append("end")

    state = await check_readiness({f"slow{n}": hang_noted for n in range(20)} | {"model": succeed}, timeout_s=0.5)
    assert not state.ready
    assert state.checks == {f"slow{n}": "TimeoutError" for n in range(20)} | {"model": "ok"}
    assert steps == ["begin"] * 20 + ["end"] * 20


async def test_cancellation_is_propagated() -> None:
    """Cancelling the caller cancels the checks, and is not reported as a failed check."""
    task = asyncio.create_task(check_readiness({"database": hang}, timeout_s=60))
    await asyncio.sleep(0)
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError)
    assert task.cancelled()


async def test_concurrent_requests_share_one_result() -> None:
    """Requests within `max_age_s` share one result; a later one runs the checks again, even if it is cancelled."""
    runs, now = 0, 0.0

    async def count() -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)

    health = Health({"database": count}, max_age_s=0.1, clock=lambda: now)
    assert all(state.ready for state in await asyncio.gather(*(health.check() for _ in range(50))))
    now = 0.1
    await health.check()
    assert runs == 1
    now = 0.15
    cancelled = asyncio.create_task(health.check())
    await asyncio.sleep(0)
    cancelled.cancel()
    assert (await health.check()).ready
    assert runs == 2
