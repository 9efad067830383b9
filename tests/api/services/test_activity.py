"""Background work pauses while no requests arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.services.background import run_in_background
from api.services.background.activity import Activity
from tests.support.polling import PATIENCE_S

IDLE_AFTER_S = 0.05


@asynccontextmanager
async def watched(activity: Activity) -> AsyncIterator[None]:
    async with asyncio.timeout(PATIENCE_S), run_in_background(activity.watch()):
        yield


async def test_idleness_pauses_and_closes_in_this_order() -> None:
    """When the process becomes idle, work pauses first, and connections are closed afterwards, even if one fails."""
    activity, happened, closed = Activity(IDLE_AFTER_S), list[str](), asyncio.Event()

    async def fail() -> None:
        happened.append("fail")
        raise OSError

    async def close() -> None:
        happened.append("close")
        closed.set()

    activity.close_when_idle(fail)
    activity.close_when_idle(close)
    activity.when_idle(lambda: happened.append("pause"))
    async with watched(activity):
        await closed.wait()
    assert happened == ["pause", "fail", "close"]


async def test_a_request_in_progress_keeps_the_process_active() -> None:
    """Nothing pauses while a request is in progress, however long it takes; work pauses after its end."""
    activity, paused = Activity(IDLE_AFTER_S), asyncio.Event()
    activity.when_idle(paused.set)
    activity.begin_request()
    async with watched(activity):
        await activity.sleep(IDLE_AFTER_S * 4)
        assert not paused.is_set()
        activity.end_request()
        await paused.wait()


async def test_loops_wait_for_the_next_request() -> None:
    """A sleeping loop continues with the next request, and work that needs the network is started again."""
    activity, paused = Activity(IDLE_AFTER_S), asyncio.Event()
    activity.when_idle(paused.set)
    began, began_again = list[str](), asyncio.Event()

    async def work() -> None:
        if "work" in began:
            began_again.set()
        began.append("work")
        await asyncio.Event().wait()

    async def loop() -> None:
        await paused.wait()
        await activity.sleep(0)
        began.append("loop")

    async with watched(activity), run_in_background(activity.run_while_active(work)):
        looping = asyncio.create_task(loop())
        await paused.wait()
        assert began == ["work"]
        activity.begin_request()
        await looping
        await began_again.wait()
    assert sorted(began) == ["loop", "work", "work"]


async def test_a_watched_gateway_never_pauses() -> None:
    """Without an idle limit, `watch` ends at once and `sleep` never waits for a request."""
    activity = Activity(None)
    await activity.watch()
    await activity.sleep(0)
