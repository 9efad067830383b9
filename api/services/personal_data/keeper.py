"""Writes images to their store in the background, so that a slow or failing store does not affect predictions."""

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
"""Limit on images that wait to be written, in each process: one image of the largest size."""
KEEPING_BYTES = BACKLOG_BYTES + 2 * MAX_BYTES
"""Memory for waiting images. The one being written is copied twice while it is encrypted."""

HEALTHY_AFTER_S = 60.0
"""Seconds without a dropped image after which the store is considered healthy again."""
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
    """Writes images in a thread of its own, which the first image starts.

    `allows` returns whether the images of a user may be kept. It is called again right before an image is written, and
    right after, because an erasure that ran meanwhile has not seen the image.
    """

    def __init__(
        self,
        archive: ImageArchive,
        allows: Callable[[str], bool],
        limit_bytes: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        *,
        processes: int = 1,
    ) -> None:
        self._archive = archive
        self._allows = allows
        self._space = SpaceLimit(archive.measure, limit_bytes, processes=processes)
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

    def allows(self, owner: str) -> bool:
        """Return whether the owner allows images to be kept."""
        return self._allows(owner)

    def keep_later(self, owner: str, prediction: str, content: bytes) -> None:
        """Queue the image of a recorded prediction to be written, unless the backlog is full."""
        with self._lock:
            accepted = self._waiting_bytes + len(content) <= BACKLOG_BYTES
            if accepted:
                self._waiting_bytes += len(content)
                self._waiting.put(_Image(owner, prediction, content))
                self._start_thread()
        if not accepted:
            self._report_problem(NotKept.BACKLOG)

    def close(self) -> None:
        """Write the waiting images for at most two seconds, and drop the rest."""
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(_CLOSING_S)
        with suppress(Empty):
            while self._waiting.get_nowait() is not None:
                self._report_problem(NotKept.BACKLOG)

    def _start_thread(self) -> None:
        if self._thread is None:
            # A daemon, because a store that does not respond must not prevent the process from exiting.
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
            log.warning(
                "image_not_kept",
                problem=problem,
                reason=reason,
                policy="the prediction continues, and the image is not kept",
            )

    def _report_kept(self) -> None:
        """Log the recovery, but not at once, because a store at its limit may keep one image and drop the next."""
        if self._problems and self._clock() - self._last_problem_at >= HEALTHY_AFTER_S:
            self._problems.clear()
            log.info("images_kept_again")
