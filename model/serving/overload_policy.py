"""The rules that accept, preempt or reject a prediction request, as pure functions of a snapshot (ADR 0009)."""

from __future__ import annotations

import math
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

# Rejections per completed job above which load counts as overload.
_OVERLOAD_RATIO = 4
_MAX_RETRY_SPREAD_S = 20.0

# Except QueueLimits, the classes below are not frozen, although no instance is changed: a frozen instance takes three
# times as long to create, and each request needs several.


class LoadState(StrEnum):
    """How many jobs may wait.

    NORMAL: up to the configured limits. SHEDDING: as many as start within half the duration of a job. OVERLOAD: the
    same number, but only for callers that have no other job.
    """

    NORMAL = "normal"
    SHEDDING = "shedding"
    OVERLOAD = "overload"


class QueueLimits(Struct, frozen=True):
    """In the normal state, at most `slots` jobs wait, each for an estimated `seconds` at most.

    A rejection starts a period of shedding, which lasts `shedding_s` seconds.
    """

    slots: int = 64
    seconds: float = 2.0
    shedding_s: float = 1.0


class LoadHistory(Struct):
    """When the latest period of shedding ends, and the jobs completed and rejected since it began.

    If the period followed another one directly, half of the counts of that period are included.
    """

    shedding_until: float = -math.inf
    completed: int = 0
    rejected: int = 0


class LoadSnapshot(Struct):
    """The queue at the time `now`; `job_s` is the estimated duration of a job in seconds.

    `largest_caller_jobs` is the largest number of running and queued jobs of any caller that has one queued.
    """

    now: float
    workers: int
    running: int
    queued: int
    job_s: float
    largest_caller_jobs: int
    history: LoadHistory

    @property
    def waiting(self) -> int:
        """Jobs in excess of the workers. A queued job that an idle worker is about to take is not included."""
        return max(0, self.running + self.queued - self.workers)

    @property
    def busy(self) -> bool:
        """Whether a new job would have to wait."""
        return self.running + self.queued >= self.workers

    @property
    def wait_s(self) -> float:
        """The seconds that a new job would wait, assuming that running jobs are half done on average."""
        return (self.waiting + 0.5) / self.workers * self.job_s


class CallerLoad(Struct):
    """The number of running and queued jobs of a request's caller, and its deadline on the snapshot's clock."""

    jobs: int
    deadline: float = math.inf


class Decision(Struct):
    """Accept or reject a request, after evicting `evictions` queued jobs of the callers with the most jobs.

    An accepted request with an eviction preempts the evicted job. `history` replaces the snapshot's.
    """

    accepted: bool
    evictions: int
    history: LoadHistory


class OverloadPolicy:
    """Decides without a lock or a clock: everything it needs is in the snapshot."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits

    def decide(self, load: LoadSnapshot, caller: CallerLoad) -> Decision:
        if not load.busy:
            return Decision(True, 0, load.history)
        if load.now + load.wait_s + load.job_s > caller.deadline:
            return Decision(False, 0, load.history)  # an unmeetable deadline does not indicate overload
        history = self._start_period(load)
        if self._may_wait(load, caller, get_load_state(history, load.now)):
            return Decision(True, 0, history)
        if load.largest_caller_jobs > caller.jobs + 1:
            return Decision(True, 1, history)
        history = self._count_rejection(history, load.now)
        return Decision(False, _count_evictions(load, history), history)

    def _may_wait(self, load: LoadSnapshot, caller: CallerLoad, state: LoadState) -> bool:
        if load.waiting >= self._limits.slots:
            return False
        if state is LoadState.NORMAL:
            return load.wait_s <= self._limits.seconds
        if state is LoadState.OVERLOAD and caller.jobs:
            return False
        return load.waiting < _count_shedding_slots(load.workers)

    def _start_period(self, load: LoadSnapshot) -> LoadHistory:
        """Start another period of shedding, or return to normal, if the period has ended.

        Another period starts if the request follows soon, and most requests of the last period were rejected. It begins
        with half of the counts, so that an overload that continues stays an overload.
        """
        history = load.history
        if load.now < history.shedding_until:
            return history
        follows_soon = load.now < history.shedding_until + self._limits.shedding_s
        if follows_soon and history.rejected > history.completed:
            until = load.now + self._limits.shedding_s
            return LoadHistory(until, history.completed // 2, history.rejected // 2)
        return LoadHistory(history.shedding_until)

    def _count_rejection(self, history: LoadHistory, now: float) -> LoadHistory:
        if now >= history.shedding_until:
            history = replace(history, shedding_until=now + self._limits.shedding_s)
        return replace(history, rejected=history.rejected + 1)


def get_load_state(history: LoadHistory, now: float) -> LoadState:
    if now >= history.shedding_until:
        return LoadState.NORMAL
    overload = history.rejected > _OVERLOAD_RATIO * (history.completed + 1)
    return LoadState.OVERLOAD if overload else LoadState.SHEDDING


def compute_retry_after_s(load: LoadSnapshot, jitter: float) -> int:
    """Return the seconds after which a rejected caller should try again, at least 1.

    While shedding, add a second for each rejection per completed job after the first, up to a limit, times `jitter`
    (around 1). If all callers comply, they return at the rate at which jobs complete.
    """
    history = load.history
    excess = history.rejected / (history.completed + 1) - 1 if load.now < history.shedding_until else 0.0
    spread_s = min(max(excess, 0.0), _MAX_RETRY_SPREAD_S) * jitter
    return max(1, math.ceil(load.wait_s + spread_s))


def _count_shedding_slots(workers: int) -> int:
    """Return how many jobs may wait while shedding: as many as start within half the duration of a job."""
    return (workers + 1) // 2


def _count_evictions(load: LoadSnapshot, history: LoadHistory) -> int:
    """Return how many waiting jobs to evict after a rejection: those beyond the shedding slots.

    None are evicted until the rejections exceed half of the queued jobs: fewer may be a short burst.
    """
    if history.rejected <= load.queued / 2:
        return 0
    return max(0, load.waiting - _count_shedding_slots(load.workers))
