"""Serving whichever version an alias names: load the new one, warm it up, switch, drain, release the old one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from model.backends.base import Backend, ModelInfo
from model.errors import MemoryFull, ModelError
from model.serving.retries import Retries
from model.serving.service import PredictionService
from model.serving.workers import lower_priority, wait_for_result

T = TypeVar("T")

POLL_S = 0.5


class Versions(Protocol):
    """The versions of one model. Its methods block, but for `reserve_memory`."""

    def find(self) -> str:
        """Return the version that the alias names. Raises RegistryError."""
        ...

    def open(self, version: str) -> Backend:
        """Return a back end that has made its first predictions. Raises ArtefactError, RegistryError."""
        ...

    def reserve_memory(self, version: str) -> AbstractAsyncContextManager[None]:
        """Hold the memory for the version, beside that of the one in service. Raises MemoryFull, ModelTooLarge."""
        ...

    def release(self, backend: Backend) -> None:
        """Close a back end that nobody uses any more, and return its memory to the system."""
        ...


class Observer(Protocol):
    def on_switch(self, previous: ModelInfo, current: Backend) -> None:
        """Requests from now on use `current`."""
        ...

    def on_failure(self, version: str, error: Exception) -> None:
        """The version could not be loaded, so the previous one goes on serving."""
        ...

    def on_registry_error(self, error: ModelError) -> None:
        """It is unknown which version the alias names. Called once for each outage."""
        ...


class AliasFollower:
    """Keeps `predictions` on the version that the alias names. For one event loop.

    There are never more than two versions in memory, and of several moves only the last one is followed. `clock` is in
    seconds.
    """

    def __init__(
        self,
        predictions: PredictionService,
        versions: Versions,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictions = predictions
        self._versions = versions
        self._observer = observer
        self._retries = Retries(clock)
        # A thread of low priority, which it passes on to those that load the model: requests come first.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=lower_priority)
        self._registry_problem: str | None = None
        self._lacks_memory = False

    @property
    def problem(self) -> str | None:
        """The code of the reason why another version is served than the alias names; None if the alias is followed."""
        if self._registry_problem is not None:
            return self._registry_problem
        return self._retries.code or (MemoryFull.code if self._lacks_memory else None)

    async def follow(self) -> None:
        """Look at the alias twice a second until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_S)
                await self.catch_up()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def catch_up(self) -> None:
        """Serve the version that the alias names now, unless it is in service or has failed a short time ago."""
        version = await self._find()
        if version is None:
            return
        if version == self._predictions.model.version:
            self._note_success()
            return
        if not self._retries.is_due(version):
            return
        try:
            await self._load(version)
        except MemoryFull:
            self._lacks_memory = True  # images in progress have the memory: the next look tries again
        except Exception as error:  # whatever is wrong with a version, the one in service goes on
            self._retries.record(version, error)
            self._lacks_memory = False
            self._observer.on_failure(version, error)

    async def _find(self) -> str | None:
        """Return the version that the alias names, or None while the registry is unavailable."""
        try:
            version = await self._run(self._versions.find)
        except ModelError as error:
            if error.code != self._registry_problem:
                self._observer.on_registry_error(error)
            self._registry_problem = error.code
            return None
        self._registry_problem = None
        return version

    async def _load(self, version: str) -> None:
        async with self._versions.reserve_memory(version):
            backend = await self._run(lambda: self._versions.open(version))
            if await self._find() != version:  # the alias has moved meanwhile: the next check loads the current version
                await self._run(lambda: self._versions.release(backend))
                return
            before = self._predictions.model
            unused = self._predictions.replace_backend(backend)
            self._note_success()
            self._observer.on_switch(before, backend)
            previous = await wait_for_result(unused)
            await self._run(lambda: self._versions.release(previous))

    def _note_success(self) -> None:
        self._retries.forget()
        self._lacks_memory = False

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
