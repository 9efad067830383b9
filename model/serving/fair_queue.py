"""Who is next: every caller has a line of its own, and the lines are served in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Who sends much waits behind its own, not before others. Whoever shares it holds a lock."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def join(self, caller: str, job: T) -> None:
        self._lines.setdefault(caller, deque()).append(job)
        self._waiting += 1

    def next(self) -> T:
        """Take the first of the line whose turn it is. Raises KeyError when nobody waits."""
        caller, line = self._lines.popitem(last=False)
        job = line.popleft()
        self._waiting -= 1
        if line:
            self._lines[caller] = line
        return job

    def leave(self, caller: str, job: T) -> bool:
        """Whether the job still waited, and now does not."""
        line = self._lines.get(caller)
        if line is None or job not in line:
            return False
        line.remove(job)
        self._forget(caller, line)
        return True

    def heaviest(self, having: Mapping[str, int]) -> str:
        """Of the callers who wait the one who is `having` most, of equals the last to be served. Raises ValueError."""
        return max(reversed(self._lines), key=lambda caller: having[caller])

    def evict_last(self, caller: str) -> T:
        """Take the one of the caller's line who came last."""
        line = self._lines[caller]
        job = line.pop()
        self._forget(caller, line)
        return job

    def _forget(self, caller: str, line: deque[T]) -> None:
        self._waiting -= 1
        if not line:
            del self._lines[caller]
