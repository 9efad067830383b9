"""A queue that serves callers in rotation."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for the jobs of one caller, round-robin between callers. Not thread-safe."""

    def __init__(self) -> None:
        # In the order in which callers are served next; callers without jobs are absent.
        self._jobs: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, caller: str, job: T) -> None:
        self._jobs.setdefault(caller, deque()).append(job)
        self._size += 1

    def pop(self) -> T:
        """Take the oldest job of the caller whose turn it is. Raises KeyError when the queue is empty."""
        caller, jobs = self._jobs.popitem(last=False)
        job = jobs.popleft()
        self._size -= 1
        if jobs:
            self._jobs[caller] = jobs
        return job

    def remove(self, caller: str, job: T) -> bool:
        """Remove the job. Returns whether it was still in the queue."""
        jobs = self._jobs.get(caller)
        if jobs is None or job not in jobs:
            return False
        jobs.remove(job)
        self._shrink(caller, jobs)
        return True

    def find_largest(self, weights: Mapping[str, int]) -> str:
        """Return the queued caller with the largest weight; on a tie, the last in turn. Raises ValueError if empty."""
        return max(reversed(self._jobs), key=lambda caller: weights[caller])

    def evict_last(self, caller: str) -> T:
        """Remove and return the caller's newest job. Raises KeyError when the caller has none."""
        jobs = self._jobs[caller]
        job = jobs.pop()
        self._shrink(caller, jobs)
        return job

    def _shrink(self, caller: str, jobs: deque[T]) -> None:
        self._size -= 1
        if not jobs:
            del self._jobs[caller]
