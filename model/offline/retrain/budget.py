"""The wall-clock budget of a run, over all of its processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path


class Budget:
    """`total_s` seconds for all processes of a run. `path` stores the time that earlier processes spent.

    If a process is killed, its time since the last `save` is not counted.
    """

    def __init__(self, path: Path, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_s = total_s
        self._path = path
        self._clock = clock
        earlier = json.loads(path.read_text())["spent_s"] if path.exists() else 0.0
        self._start = clock() - earlier

    @property
    def spent_s(self) -> float:
        return self._clock() - self._start

    def remaining_s(self, share: float) -> float:
        """Return the seconds until this share of the budget is spent; negative if it is exceeded."""
        return share * self.total_s - self.spent_s

    def __str__(self) -> str:
        return f"{self.spent_s / 60:.1f} of {self.total_s / 60:g} minutes"

    def save(self) -> None:
        """Write the time spent, for a resumed run."""
        temporary = self._path.with_suffix(".temporary")
        temporary.write_text(json.dumps({"spent_s": self.spent_s}))
        temporary.replace(self._path)
