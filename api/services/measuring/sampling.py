"""Samples the state of this process twice a second."""

from __future__ import annotations

import asyncio

from api.services.background.activity import Activity
from auth.changes import ChangeFeed
from model.serving.overload_policy import LoadState
from model.serving.queue import PredictionQueue
from monitoring.metrics import Metrics

INTERVAL_S = 0.5
DATABASE_DOWN_AFTER_S = 3.0
"""The change feed polls the database four times a second. After this long without a response, it is considered down."""


async def sample_process(
    queue: PredictionQueue, changes: ChangeFeed, database: str, metrics: Metrics, activity: Activity
) -> None:
    """Measure the lag of the event loop, and sample the queue and the state of `database`, until cancelled."""
    loop = asyncio.get_running_loop()
    database_up = metrics.database_up.labels(database)
    states = {state: metrics.queue_state.labels(state) for state in LoadState}
    while True:
        database_up.set(changes.age_s < DATABASE_DOWN_AFTER_S)
        metrics.queue_length.set(queue.waiting)
        current = queue.state
        for state, gauge in states.items():
            gauge.set(state is current)
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        metrics.event_loop_lag.observe(max(0.0, loop.time() - due))
        await activity.wait()
