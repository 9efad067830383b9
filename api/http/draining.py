"""Whether the process is about to end, and why. Responses, readiness and the server share this state."""

from __future__ import annotations

from collections.abc import Callable


class Draining:
    """Draining begins once, when the process is told to stop or has to be replaced.

    From then on, each response asks its client to close the connection. `stuck_jobs` counts the stuck jobs that made a
    replacement necessary; the replacement process continues the count. `cut_off` ends the predictions in progress when
    the time for them is up.
    """

    def __init__(self, stuck_jobs: int = 0) -> None:
        self.begun = False
        self.replacement_due = False
        self.stuck_jobs = stuck_jobs
        self.cut_off: Callable[[], object] = lambda: None

    def begin(self) -> None:
        self.begun = True

    def count_stuck_job(self) -> None:
        """Request the replacement of the process, because one of its threads will probably never finish its job."""
        self.stuck_jobs += 1
        self.replacement_due = True
        self.begin()
