"""Keeping images beside the requests: a prediction is neither slowed nor refused by a store that is slow or fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import NamedTuple

import structlog

from model.imaging.bounds import MAX_BYTES
from monitoring.metrics import Metrics
from storage.images.archive import ImageArchive
from storage.images.errors import ImageStoreUnavailable
from storage.images.space import SpaceLimit

BACKLOG_BYTES = MAX_BYTES
"""Of images that wait to be written, in each process: one of the largest size."""
KEEPING_BYTES = BACKLOG_BYTES + 2 * MAX_BYTES
"""Memory for waiting images: the one that is being written is copied twice while it is encrypted."""

QUIET_S = 60.0
"""So long after the last image that was not kept, a store counts as usable again."""
_CLOSING_S = 2.0

log = structlog.get_logger("atalaya.images")


class NotKept(StrEnum):
    """Why an image was not kept although its owner allows it."""

    BACKLOG = "backlog"
    FULL = "full"
    FAILED = "failed"


class _Image(NamedTuple):
    owner: str
    prediction: str
    content: bytes


class ImageKeeper:
    """Writes images in a thread of its own, which starts with the first one.

    `allows` returns whether the images of a user may be kept; it is asked again right before an image is written, and
    afterwards: an erasure that ran meanwhile has not seen the image.
    """

    def __init__(
        self,
        archive: ImageArchive,
        allows: Callable[[str], bool],
        limit_bytes: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archive = archive
        self._allows = allows
        self._space = SpaceLimit(archive.measure, limit_bytes)
        self._metrics = metrics
        self._clock = clock
        self._waiting: SimpleQueue[_Image | None] = SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._problems: set[NotKept] = set()
        self._last_problem_at = 0.0
        for reason in NotKept:
            metrics.images_not_kept.labels(reason)

    def wants(self, owner: str) -> bool:
        """Whether the owner allows it."""
        return self._allows(owner)

    def keep_later(self, owner: str, prediction: str, content: bytes) -> None:
        """Have the image of a recorded prediction written, unless too many wait already."""
        with self._lock:
            accepted = self._waiting_bytes + len(content) <= BACKLOG_BYTES
            if accepted:
                self._waiting_bytes += len(content)
                self._waiting.put(_Image(owner, prediction, content))
                self._start_thread()
        if not accepted:
            self._report_problem(NotKept.BACKLOG)

    def close(self) -> None:
        """Write what waits, for at most two seconds; the rest is not kept."""
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(_CLOSING_S)
        with suppress(Empty):
            while self._waiting.get_nowait() is not None:
                self._report_problem(NotKept.BACKLOG)

    def _start_thread(self) -> None:
        if self._thread is None:
            # A daemon, because a store that does not respond must not keep the process from ending.
            self._thread = threading.Thread(target=self._write_all, name="images", daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        while (image := self._waiting.get()) is not None:
            try:
                self._write(image)
            except Exception as error:  # whatever a library raises, the next image must be written
                self._report_problem(NotKept.FAILED, error)
            with self._lock:
                self._waiting_bytes -= len(image.content)

    def _write(self, image: _Image) -> None:
        if not self._space.admits(len(image.content)):  # before `allows`: measuring the store may take long
            self._report_problem(NotKept.FULL)
            return
        if not self._allows(image.owner):
            return
        self._archive.keep(*image)
        if not self._allows(image.owner):
            self._archive.discard(image.owner, image.prediction)
            return
        self._metrics.images_kept.inc()
        self._metrics.image_store_bytes.set(self._space.used)
        self._report_kept()

    def _report_problem(self, problem: NotKept, error: Exception | None = None) -> None:
        """Count an image that is not kept, and log the first one for each reason."""
        self._metrics.images_not_kept.labels(problem).inc()
        self._last_problem_at = self._clock()
        if problem not in self._problems:
            self._problems.add(problem)
            reason = str(error) if isinstance(error, ImageStoreUnavailable) else type(error).__name__ if error else ""
            log.warning("image_not_kept", problem=problem, reason=reason, policy="predictions go on")

    def _report_kept(self) -> None:
        """Log the end of the problems: not at once, because a store at its limit keeps one image and drops the next."""
        if self._problems and self._clock() - self._last_problem_at >= QUIET_S:
            self._problems.clear()
            log.info("images_kept_again")
