"""The threads that run the jobs of a queue, and those that load models."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from model.backends.priority import lower_priority
from model.serving.queue import Job, PredictionQueue

T = TypeVar("T")

_NAME_PREFIX = "predict_"


class WorkerThreads:
    """`count` threads, which end when the queue is closed and empty."""

    def __init__(self, queue: PredictionQueue, count: int) -> None:
        self._queue = queue
        # Daemon threads, so that a stuck thread does not keep the process from exiting.
        self._threads = [
            threading.Thread(target=self._run, name=f"{_NAME_PREFIX}{index}", daemon=True) for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def join(self, limit_s: float = math.inf) -> bool:
        """Wait for at most `limit_s` seconds until all threads have ended. Returns whether they have."""
        until = time.monotonic() + limit_s
        for thread in self._threads:
            thread.join(None if math.isinf(until) else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        lower_priority()
        wakeup = self._queue.register_worker()
        while (job := self._queue.take(wakeup)) is not None:
            deliver = _execute(job) if job.result.set_running_or_notify_cancel() else None
            job.data = b""
            self._queue.finish(job)
            if deliver is not None:
                deliver()
            del job, deliver  # frees their memory, which is no longer reserved, before waiting for the next job


class LoadingThread:
    """A thread that runs blocking functions, such as loading a model, in order.

    Its low priority lets requests run first; the threads that load the model inherit it.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=lower_priority)

    async def run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Cancel the waiting functions, and do not wait for the running one."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def wait_for_result(result: Future[T]) -> T:
    """Wait on an event loop for the result of a job.

    Like asyncio.wrap_future, but cheaper for the event loop because it does not propagate cancellation.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake_from_thread(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(wake)

    result.add_done_callback(wake_from_thread)
    await waiter
    return result.result()


def is_any_worker_alive() -> bool:
    """Whether this process has a live worker thread of any queue."""
    return any(thread.name.startswith(_NAME_PREFIX) for thread in threading.enumerate())


def _execute(job: Job[T]) -> Callable[[], None]:
    """Run the job, and return a function that delivers the result or the error to the caller."""
    try:
        return partial(job.result.set_result, job.work(job))
    except BaseException as error:  # the caller gets every error; the thread continues
        return partial(job.result.set_exception, error)
