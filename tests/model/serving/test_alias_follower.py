"""Following an alias: which versions are loaded and when, and what happens if loading fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from model.backends.base import Backend, ModelInfo
from model.backends.stub import StubBackend
from model.errors import ArtefactError, MemoryFull, ModelError
from model.registry.errors import RegistryUnavailable, UnknownAlias
from model.serving import alias_follower
from model.serving.alias_follower import AliasFollower
from model.serving.retries import FIRST_RETRY_S, LAST_RETRY_S
from model.serving.service import PredictionService
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService, png, until
from tests.support.polling import PATIENCE_S


class ScriptedVersions:
    """Versions without files. The test moves `target`, lets loads wait for `gate`, and makes them fail."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.gate = threading.Event()
        self.gate.set()
        self.broken: dict[str, Exception] = {}
        self.memory_full = False
        self.registry_error: Exception | None = None
        self.opened: list[str] = []
        self.released: list[Backend] = []
        self.reserved = self.loading = self.most_loading = 0

    def find(self) -> str:
        if self.registry_error is not None:
            raise self.registry_error
        return self.target

    def open(self, version: str) -> Backend:
        self.opened.append(version)
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            assert self.gate.wait(PATIENCE_S)
            if version in self.broken:
                raise self.broken[version]
            return make_backend(version)
        finally:
            self.loading -= 1

    @asynccontextmanager
    async def reserve_memory(self, version: str) -> AsyncIterator[None]:
        if self.memory_full:
            raise MemoryFull("The memory for images is in use.", retry_after_s=1)
        self.reserved += 1
        try:
            yield
        finally:
            self.reserved -= 1

    def release(self, backend: Backend) -> None:
        self.released.append(backend)


class Reports:
    """An observer that records its calls."""

    def __init__(self) -> None:
        self.switches: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str]] = []
        self.registry_errors: list[str] = []
        self.check_failures: list[str] = []

    def on_switch(self, previous: ModelInfo, current: Backend) -> None:
        self.switches.append((previous.version, current.info.version))

    def on_failure(self, version: str, error: Exception) -> None:
        self.failures.append((version, str(error)))

    def on_registry_error(self, error: ModelError) -> None:
        self.registry_errors.append(error.code)

    def on_check_failure(self, error: Exception) -> None:
        self.check_failures.append(str(error))


def make_backend(version: str) -> StubBackend:
    backend = StubBackend()
    backend.info = replace(backend.info, version=version)
    return backend


def make_follower(
    service: PredictionService, target: str, clock: FakeClock
) -> tuple[AliasFollower, ScriptedVersions, Reports]:
    """Make a follower for a service that serves version 1.0 of the stub."""
    versions, reports = ScriptedVersions(target), Reports()
    return AliasFollower(service, versions, reports, clock), versions, reports


async def test_the_old_version_is_released_when_its_last_request_has_ended(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """Requests that have started keep the old version and its memory; later ones use the new version at once."""
    service = make_service(workers=2)
    follower, versions, reports = make_follower(service, "2.0", clock)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    moving = asyncio.create_task(follower.catch_up())
    await until(lambda: reports.switches == [("1.0", "2.0")])
    assert (await service.predict(png(2))).model.version == "2.0"
    assert (versions.released, versions.reserved) == ([], 1)
    backend.gate.set()
    assert (await running).model.version == "1.0"
    await moving
    assert (versions.released, versions.reserved) == ([backend], 0)
    assert follower.problem is None


async def test_a_cancelled_request_holds_the_old_version_until_its_thread_is_done(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """The old version is not released before the thread of a request whose client has disconnected is done."""
    service = make_service(workers=1)
    follower, versions, reports = make_follower(service, "2.0", clock)
    running = asyncio.create_task(service.predict(png(1)))
    await until(lambda: backend.in_progress == 1)
    moving = asyncio.create_task(follower.catch_up())
    await until(lambda: bool(reports.switches))
    running.cancel()
    await asyncio.wait([running])
    assert versions.released == []
    backend.gate.set()
    await moving
    assert versions.released == [backend]


async def test_of_several_moves_only_the_last_is_followed(make_service: MakeService, clock: FakeClock) -> None:
    """A version that the alias left while it was loaded never serves, and no two loads run at the same time."""
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    versions.gate.clear()
    moving = asyncio.create_task(follower.catch_up())
    await until(lambda: versions.opened == ["2.0"])
    versions.target = "2.1"
    versions.target = "2.2"
    versions.gate.set()
    await moving
    assert service.model.version == "1.0"
    assert [released.info.version for released in versions.released] == ["2.0"]
    await follower.catch_up()
    assert reports.switches == [("1.0", "2.2")]
    assert versions.opened == ["2.0", "2.2"]
    assert versions.most_loading == 1


async def test_a_version_in_service_is_not_loaded_again(make_service: MakeService, clock: FakeClock) -> None:
    """Nothing is loaded while the alias points to the version in service."""
    follower, versions, _ = make_follower(make_service(), "1.0", clock)
    for _ in range(3):
        await follower.catch_up()
    assert versions.opened == []


async def test_a_broken_version_is_tried_again_ever_more_rarely(make_service: MakeService, clock: FakeClock) -> None:
    """The delay doubles with each failure, up to half an hour; after a repair, the next attempt succeeds."""
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    versions.broken["2.0"] = ArtefactError("the graph is damaged")
    delay_s, delays = FIRST_RETRY_S, []
    for _ in range(8):
        await follower.catch_up()
        attempts = len(versions.opened)
        clock.now += delay_s - 1
        await follower.catch_up()
        assert len(versions.opened) == attempts
        clock.now += 1
        delays.append(delay_s)
        delay_s = min(2 * delay_s, LAST_RETRY_S)
    assert (delays[-1], len(versions.opened), len(reports.failures)) == (LAST_RETRY_S, 8, 8)
    assert (service.model.version, follower.problem) == ("1.0", "artefact_error")
    assert set(reports.failures) == {("2.0", "the graph is damaged")}
    del versions.broken["2.0"]
    await follower.catch_up()
    assert (service.model.version, follower.problem) == ("2.0", None)


async def test_another_move_ends_the_delay_of_a_failure(make_service: MakeService, clock: FakeClock) -> None:
    """After a failure, another version is loaded at once, and so is the same one when the alias returns to it."""
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    versions.broken["2.0"] = RuntimeError("an error of the runtime")
    await follower.catch_up()
    problems = [follower.problem]
    versions.target = "2.1"
    await follower.catch_up()
    assert service.model.version == "2.1"
    problems.append(follower.problem)
    versions.target = "2.0"
    await follower.catch_up()
    assert versions.opened == ["2.0", "2.1", "2.0"]
    assert [version for version, _ in reports.failures] == ["2.0", "2.0"]
    problems.append(follower.problem)
    versions.target = "2.1"
    await follower.catch_up()
    assert [*problems, follower.problem] == ["internal_error", None, "internal_error", None]
    assert len(versions.opened) == 3


async def test_a_load_waits_for_the_memory_of_images_in_progress(make_service: MakeService, clock: FakeClock) -> None:
    """While images use the memory, nothing is loaded and no failure reported; the next check tries again."""
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    versions.memory_full = True
    await follower.catch_up()
    assert (versions.opened, reports.failures, follower.problem) == ([], [], "memory_full")
    versions.memory_full = False
    await follower.catch_up()
    assert (service.model.version, follower.problem) == ("2.0", None)


async def test_an_unreadable_registry_changes_nothing_and_is_reported_once(
    make_service: MakeService, clock: FakeClock
) -> None:
    """The version in service stays; each kind of problem is reported once, and later moves are followed."""
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    for error in (RegistryUnavailable("gone"), RegistryUnavailable("gone"), UnknownAlias("removed")):
        versions.registry_error = error
        await follower.catch_up()
        assert follower.problem == error.code
    assert reports.registry_errors == ["registry_unavailable", "unknown_alias"]
    assert service.model.version == "1.0"
    versions.registry_error = None
    await follower.catch_up()
    assert (service.model.version, follower.problem) == ("2.0", None)


async def test_an_unexpected_error_does_not_end_the_checks(
    make_service: MakeService, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is reported once, and the next move of the alias is followed."""
    monkeypatch.setattr(alias_follower, "POLL_S", 0.01)
    service = make_service()
    follower, versions, reports = make_follower(service, "2.0", clock)
    versions.registry_error = ZeroDivisionError("a bug")
    following = asyncio.create_task(follower.follow())
    await until(lambda: bool(reports.check_failures))
    await asyncio.sleep(0.1)
    versions.registry_error = None
    await until(lambda: service.model.version == "2.0")
    following.cancel()
    await asyncio.wait([following])
    assert (following.cancelled(), reports.check_failures) == (True, ["a bug"])
