"""Serve the version that an alias points to: load the new one, warm it up, switch, drain, release the old one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from model.backends.base import Backend, ModelInfo
from model.errors import MemoryFull, ModelError
from model.serving.retries import Retries
from model.serving.service import PredictionService
from model.serving.workers import LoadingThread, wait_for_result

POLL_S = 0.5


class Versions(Protocol):
    """The versions of one model. All methods block except `reserve_memory`."""

    def find(self) -> str:
        """Return the version that the alias points to. Raises RegistryError."""
        ...

    def open(self, version: str) -> Backend:
        """Return a back end that has made its first predictions. Raises ArtefactError, RegistryError."""
        ...

    def reserve_memory(self, version: str) -> AbstractAsyncContextManager[None]:
        """Reserve memory for the version in addition to the one in service. Raises MemoryFull, ModelTooLarge."""
        ...

    def release(self, backend: Backend) -> None:
        """Close a back end that is no longer used, and return its memory to the system."""
        ...


class AliasObserver(Protocol):
    def on_switch(self, previous: ModelInfo, current: Backend) -> None:
        """New requests use `current`."""
        ...

    def on_failure(self, version: str, error: Exception) -> None:
        """The version could not be loaded; the previous one stays in service."""
        ...

    def on_registry_error(self, error: ModelError) -> None:
        """The alias cannot be read from the registry. Called once for each outage."""
        ...

    def on_check_failure(self, error: Exception) -> None:
        """A check failed because of an unexpected error. Called once until a check succeeds."""
        ...


class AliasFollower:
    """Keeps `predictions` on the version that the alias points to. Use it on one event loop only.

    Loads one version at a time, beside the one in service. If the alias moves several times, only the last move is
    followed. `clock` is in seconds.
    """

    def __init__(
        self,
        predictions: PredictionService,
        versions: Versions,
        observer: AliasObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictions = predictions
        self._versions = versions
        self._observer = observer
        self._retries = Retries(clock)
        self._thread = LoadingThread("model")
        self._registry_problem: str | None = None
        self._lacks_memory = False
        self._check_failed = False

    @property
    def problem(self) -> str | None:
        """The error code that explains why the service is not on the alias's version; None if it is."""
        if self._registry_problem is not None:
            return self._registry_problem
        return self._retries.code or (MemoryFull.code if self._lacks_memory else None)

    async def follow(self) -> None:
        """Check the alias twice a second until cancelled."""
        try:
            while True:
                await asyncio.sleep(POLL_S)
                try:
                    await self.catch_up()
                    self._check_failed = False
                except Exception as error:  # a bug must not end the checks forever
                    if not self._check_failed:
                        self._observer.on_check_failure(error)
                    self._check_failed = True
        finally:
            self._thread.close()

    async def catch_up(self) -> None:
        """Switch to the version that the alias points to, unless it is in service or has failed recently."""
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
            self._lacks_memory = True  # images in progress hold the memory; the next check tries again
        except Exception as error:  # whatever is wrong with a version, the current one stays in service
            self._retries.record(version, error)
            self._lacks_memory = False
            self._observer.on_failure(version, error)

    async def _find(self) -> str | None:
        """Return the version that the alias points to, or None while the registry is unavailable."""
        try:
            version = await self._thread.run(self._versions.find)
        except ModelError as error:
            if error.code != self._registry_problem:
                self._observer.on_registry_error(error)
            self._registry_problem = error.code
            return None
        self._registry_problem = None
        return version

    async def _load(self, version: str) -> None:
        async with self._versions.reserve_memory(version):
            backend = await self._thread.run(lambda: self._versions.open(version))
            if await self._find() != version:  # the alias moved; the next check follows it
                await self._thread.run(lambda: self._versions.release(backend))
                return
            before = self._predictions.model
            unused = self._predictions.replace_backend(backend)
            self._note_success()
            self._observer.on_switch(before, backend)
            previous = await wait_for_result(unused)
            await self._thread.run(lambda: self._versions.release(previous))

    def _note_success(self) -> None:
        self._retries.clear()
        self._lacks_memory = False
