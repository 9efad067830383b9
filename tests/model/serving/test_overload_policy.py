"""The overload policy as a table: a snapshot of the queue and a caller in, a decision out.

Unless a row says otherwise, one worker is busy, a job takes 1 s, 4 slots and 60 s are the limits, and a period of
shedding lasts 10 s. The time is 100 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from model.serving.overload_policy import (
    CallerLoad,
    Decision,
    LoadHistory,
    LoadSnapshot,
    LoadState,
    OverloadPolicy,
    QueueLimits,
    compute_retry_after_s,
    get_load_state,
)

LIMITS = QueueLimits(slots=4, seconds=60, shedding_s=10)
NEVER = LoadHistory()
LOAD = LoadSnapshot(
    now=100, workers=1, running=1, queued=0, job_s=1.0, largest_caller_jobs=0, history=LoadHistory(shedding_until=50)
)
SHEDDING = LoadHistory(shedding_until=105, completed=3, rejected=2)
OVERLOAD = LoadHistory(shedding_until=105, completed=0, rejected=5)
NEW_CALLER = CallerLoad(jobs=0)


@dataclass(frozen=True)
class Row:
    """A snapshot and a caller, and the expected decision."""

    load: LoadSnapshot
    caller: CallerLoad
    accepted: bool
    evictions: int = 0
    state: LoadState | None = None
    rejected: int | None = None
    limits: QueueLimits = LIMITS


def snapshot(history: LoadHistory | None = None, **changes: Any) -> LoadSnapshot:
    """The load of a busy worker, with `changes`."""
    return replace(LOAD, history=history or LOAD.history, **changes)


NORMAL_STATE = {
    "a free worker accepts": Row(snapshot(running=0), NEW_CALLER, True),
    "a free worker accepts without slots": Row(snapshot(running=0), NEW_CALLER, True, limits=QueueLimits(slots=0)),
    "a job on its way to a free worker does not wait": Row(
        snapshot(workers=2, running=0, queued=1), NEW_CALLER, True, limits=QueueLimits(slots=0)
    ),
    "no slots, no waiting": Row(snapshot(), NEW_CALLER, False, limits=QueueLimits(slots=0), state=LoadState.SHEDDING),
    "a free slot accepts": Row(snapshot(queued=3), CallerLoad(4), True, state=LoadState.NORMAL),
    "no free slot rejects": Row(snapshot(queued=4), CallerLoad(5), False, state=LoadState.SHEDDING, rejected=1),
    "a wait within the limit is accepted": Row(
        snapshot(queued=2), NEW_CALLER, True, limits=QueueLimits(slots=9, seconds=2.5)
    ),
    "a wait beyond the limit is rejected": Row(
        snapshot(queued=2), NEW_CALLER, False, limits=QueueLimits(slots=9, seconds=2.4), state=LoadState.SHEDDING
    ),
    "more workers shorten the wait": Row(
        snapshot(queued=4, running=2, workers=2), NEW_CALLER, True, limits=QueueLimits(slots=9, seconds=2.4)
    ),
    "counts from before the period do not matter": Row(
        snapshot(LoadHistory(shedding_until=50, completed=0, rejected=99), queued=1),
        CallerLoad(2),
        True,
        state=LoadState.NORMAL,
        rejected=0,
    ),
}

PREEMPTION = {
    "the caller with the most jobs loses one to another": Row(
        snapshot(queued=4, largest_caller_jobs=5), NEW_CALLER, True, evictions=1, state=LoadState.NORMAL, rejected=0
    ),
    "one job more is not enough to preempt": Row(
        snapshot(queued=4, largest_caller_jobs=3), CallerLoad(2), False, state=LoadState.SHEDDING
    ),
    "two jobs more are enough": Row(
        snapshot(queued=4, largest_caller_jobs=4), CallerLoad(2), True, evictions=1, state=LoadState.NORMAL
    ),
    "while shedding": Row(
        snapshot(SHEDDING, queued=1, largest_caller_jobs=2), NEW_CALLER, True, evictions=1, state=LoadState.SHEDDING
    ),
    "under overload": Row(
        snapshot(OVERLOAD, queued=1, largest_caller_jobs=2), NEW_CALLER, True, evictions=1, state=LoadState.OVERLOAD
    ),
    "a running job cannot be preempted": Row(snapshot(OVERLOAD), CallerLoad(1), False, state=LoadState.OVERLOAD),
}

DEADLINES = {
    "a deadline that can be met": Row(snapshot(queued=1), CallerLoad(0, deadline=102.5), True),
    "a deadline that cannot be met": Row(
        snapshot(queued=1), CallerLoad(0, deadline=102.4), False, state=LoadState.NORMAL, rejected=0
    ),
    "it evicts nothing": Row(
        snapshot(OVERLOAD, queued=4, largest_caller_jobs=5),
        CallerLoad(0, deadline=101),
        False,
        state=LoadState.OVERLOAD,
        rejected=5,
    ),
    "a free worker may still be in time": Row(snapshot(running=0), CallerLoad(0, deadline=100), True),
}

SHEDDING_STATE = {
    "one job may wait for one worker": Row(snapshot(SHEDDING), CallerLoad(1), True, state=LoadState.SHEDDING),
    "a second may not": Row(snapshot(SHEDDING, queued=1), CallerLoad(1), False, state=LoadState.SHEDDING, rejected=3),
    "half as many may wait as there are workers": Row(
        snapshot(SHEDDING, workers=4, running=4, queued=1), CallerLoad(5), True, state=LoadState.SHEDDING
    ),
    "and no more": Row(
        snapshot(SHEDDING, workers=4, running=4, queued=2), CallerLoad(5), False, state=LoadState.SHEDDING
    ),
    "jobs that waited before are not evicted at once": Row(
        snapshot(LoadHistory(shedding_until=105, completed=9, rejected=1), queued=4), CallerLoad(5), False, evictions=0
    ),
    "they are once rejections exceed half of them": Row(
        snapshot(LoadHistory(shedding_until=105, completed=9, rejected=2), queued=4), CallerLoad(5), False, evictions=3
    ),
    "as many stay as may wait": Row(
        snapshot(LoadHistory(shedding_until=105, completed=9, rejected=9), workers=4, running=4, queued=4),
        CallerLoad(5),
        False,
        evictions=2,
    ),
}

OVERLOAD_STATE = {
    "four rejections per completed job are not overload": Row(
        snapshot(LoadHistory(shedding_until=105, completed=1, rejected=8)),
        CallerLoad(1),
        True,
        state=LoadState.SHEDDING,
    ),
    "more are": Row(
        snapshot(LoadHistory(shedding_until=105, completed=1, rejected=9)),
        CallerLoad(1),
        False,
        state=LoadState.OVERLOAD,
        rejected=10,
    ),
    "a caller without a job may wait": Row(snapshot(OVERLOAD), NEW_CALLER, True, state=LoadState.OVERLOAD),
    "one at a time": Row(snapshot(OVERLOAD, queued=1, largest_caller_jobs=1), NEW_CALLER, False, rejected=6),
    "a free worker accepts any caller": Row(
        snapshot(OVERLOAD, workers=2), CallerLoad(1), True, state=LoadState.OVERLOAD
    ),
}

PERIODS = {
    "overload lasts until the period ends": Row(snapshot(OVERLOAD, now=104.9), CallerLoad(1), False),
    "another period follows when most were rejected": Row(
        snapshot(OVERLOAD, now=105, queued=1), CallerLoad(2), False, state=LoadState.SHEDDING, rejected=3
    ),
    "it begins with half of the counts": Row(
        snapshot(OVERLOAD, now=105), CallerLoad(1), True, state=LoadState.SHEDDING, rejected=2
    ),
    "so an overload that continues stays an overload": Row(
        snapshot(LoadHistory(shedding_until=105, completed=3, rejected=40), now=105),
        CallerLoad(1),
        False,
        state=LoadState.OVERLOAD,
        rejected=21,
    ),
    "normal follows when most were served": Row(
        snapshot(LoadHistory(shedding_until=105, completed=5, rejected=5), now=105, queued=3),
        CallerLoad(4),
        True,
        state=LoadState.NORMAL,
        rejected=0,
    ),
    "normal follows when no request comes for a period": Row(
        snapshot(OVERLOAD, now=115, queued=3), CallerLoad(4), True, state=LoadState.NORMAL, rejected=0
    ),
}

TABLE = {**NORMAL_STATE, **PREEMPTION, **DEADLINES, **SHEDDING_STATE, **OVERLOAD_STATE, **PERIODS}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_the_decision_follows_from_the_load_and_the_caller(row: Row) -> None:
    """Each row states one rule of the policy."""
    decision = OverloadPolicy(row.limits).decide(row.load, row.caller)
    assert (decision.accepted, decision.evictions) == (row.accepted, row.evictions)
    if row.state is not None:
        assert get_load_state(decision.history, row.load.now) is row.state
    if row.rejected is not None:
        assert decision.history.rejected == row.rejected


def test_a_rejection_starts_one_period_and_later_ones_do_not_prolong_it() -> None:
    """Shedding ends a fixed time after the first rejection."""
    policy = OverloadPolicy(LIMITS)
    first = policy.decide(snapshot(queued=4), CallerLoad(5))
    assert first.history == LoadHistory(shedding_until=110, rejected=1)
    later = policy.decide(snapshot(first.history, now=104, queued=4), CallerLoad(5))
    assert later.history == LoadHistory(shedding_until=110, rejected=2)


def test_a_prolonged_period_lasts_as_long_as_the_first() -> None:
    """After a period in which most requests were rejected, another one of the same length starts."""
    decision = OverloadPolicy(LIMITS).decide(snapshot(OVERLOAD, now=105), NEW_CALLER)
    assert decision == Decision(True, 0, LoadHistory(shedding_until=115, rejected=2))


@pytest.mark.parametrize(
    ("load", "retry_after_s"),
    [
        pytest.param(snapshot(job_s=0.1), 1, id="at least a second"),
        pytest.param(snapshot(queued=3), 4, id="the estimated wait"),
        pytest.param(snapshot(SHEDDING, queued=3), 4, id="fewer rejections than completed jobs"),
        pytest.param(snapshot(LoadHistory(105, completed=1, rejected=12)), 6, id="five rejections too many per job"),
        pytest.param(snapshot(LoadHistory(105, completed=0, rejected=999)), 21, id="20 s more at most"),
        pytest.param(snapshot(LoadHistory(100, completed=0, rejected=999)), 1, id="the period is over"),
    ],
)
def test_retry_after_is_the_wait_and_a_second_per_excess_rejection(load: LoadSnapshot, retry_after_s: int) -> None:
    """Retry-After is the estimated wait plus, while shedding, up to 20 s for the rejections per completed job."""
    assert compute_retry_after_s(load, jitter=1.0) == retry_after_s


def test_retry_after_is_spread_by_the_jitter() -> None:
    """The jitter spreads the retries of callers that are rejected together."""
    load = snapshot(LoadHistory(105, completed=0, rejected=11))
    assert [compute_retry_after_s(load, jitter) for jitter in (0.5, 1.5)] == [6, 16]


def test_before_the_first_rejection_load_is_normal() -> None:
    """A queue that has not rejected anything yet is in the normal state."""
    assert get_load_state(NEVER, -math.inf) is LoadState.NORMAL
