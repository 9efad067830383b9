"""Following the alias of candidates: which candidates are loaded and tried, and when they are released."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from model.backends.stub import StubBackend
from model.canary.follower import DECIDED_POLL_S
from model.errors import ArtefactError
from model.serving.retries import FIRST_RETRY_S
from tests.model.canary.scenes import make_contest, make_scene
from tests.model.serving.gated import FakeClock, GatedBackend, MakeService
from tests.support.polling import wait_until_async


async def test_a_candidate_is_tried_while_the_alias_names_it(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A candidate serves and has memory reserved from the first check that finds its alias to the one that does not."""
    scene = make_scene(backend, make_service, clock)
    await scene.look(None)
    assert await scene.serve() == "1.0"
    await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("2.0", 1)
    await scene.look(None)
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert [each.info.version for each in scene.candidates.released] == ["2.0"]
    assert scene.reports.events == [("start", "2.0"), ("end", "2.0")]
    assert scene.evidence.written.evidence.tallies


async def test_another_candidate_replaces_the_first(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """When the alias moves, the first candidate is released before the next trial starts."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.look("2.1")
    assert (await scene.serve(), scene.candidates.reserved) == ("2.1", 1)
    assert scene.reports.events == [("start", "2.0"), ("end", "2.0"), ("start", "2.1")]


async def test_a_verdict_ends_the_trial(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """Once any process has recorded a verdict, the candidate is released and not loaded again."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.evidence.decided.add("2.0")
    for _ in range(3):
        await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert (scene.candidates.opened, scene.evidence.begun) == (["2.0"], ["2.0"])
    clock.now += DECIDED_POLL_S
    await scene.look("2.0")
    assert (scene.candidates.opened, scene.evidence.begun) == (["2.0"], ["2.0", "2.0"])


async def test_findings_wait_for_the_store(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """While the store is unavailable, the trial continues, and its findings are written later."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.evidence.is_unavailable = True
    assert await scene.serve() == "2.0"
    await scene.look("2.0")
    assert not scene.evidence.written
    scene.evidence.is_unavailable = False
    await scene.look("2.0")
    assert scene.evidence.written


async def test_no_trial_begins_without_the_store(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """While the store is unavailable, no candidate is loaded; the next check tries again."""
    scene = make_scene(backend, make_service, clock)
    scene.evidence.is_unavailable = True
    await scene.look("2.0")
    assert scene.candidates.opened == []
    scene.evidence.is_unavailable = False
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_trial_ends_after_an_error_that_nobody_expects(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """After an unexpected error, the candidate stops serving, the error is reported, and a delayed trial follows."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.evidence.is_broken = True
    following = asyncio.create_task(scene.follower.follow(lambda _: asyncio.sleep(0.01)))
    await wait_until_async(lambda: scene.service.trial is None)
    assert scene.reports.events == [("start", "2.0"), ("", "2.0"), ("end", "2.0")]
    assert (await scene.serve(), scene.follower.problem) == ("1.0", "internal_error")
    scene.evidence.is_broken = False
    clock.now += FIRST_RETRY_S
    await wait_until_async(lambda: scene.service.trial is not None)
    following.cancel()
    await asyncio.wait([following])


async def test_a_broken_candidate_is_tried_again_later(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """If a candidate cannot be loaded, production serves, the failure is reported once, and a later attempt follows."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.broken = ArtefactError("the graph is damaged")
    for _ in range(3):
        await scene.look("2.0")
    assert (await scene.serve(), scene.follower.problem) == ("1.0", "artefact_error")
    assert scene.reports.events == [("artefact_error", "2.0")]
    scene.candidates.broken = None
    clock.now += FIRST_RETRY_S
    await scene.look("2.0")
    assert (await scene.serve(), scene.follower.problem, scene.candidates.reserved) == ("2.0", None, 1)


async def test_a_candidate_with_other_classes_is_released(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A candidate whose classes differ from production's serves no caller and keeps no memory reserved."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.classes = backend.info.classes[::-1]
    await scene.look("2.0")
    assert (await scene.serve(), scene.candidates.reserved) == ("1.0", 0)
    assert [each.info.version for each in scene.candidates.released] == ["2.0"]
    assert scene.reports.events == [("candidate_not_comparable", "2.0")]


async def test_a_candidate_waits_for_memory(backend: GatedBackend, make_service: MakeService, clock: FakeClock) -> None:
    """While images occupy the memory, no candidate is loaded and no failure is reported; the next check tries again."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.memory_is_full = True
    await scene.look("2.0")
    assert (scene.candidates.opened, scene.reports.events) == ([], [])
    scene.candidates.memory_is_full = False
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_trial_goes_on_while_the_registry_is_unreadable(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """While the registry is unavailable, a running trial continues."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    scene.candidates.registry_fails = True
    await scene.look("2.0")
    assert await scene.serve() == "2.0"


async def test_a_replaced_production_ends_the_trial(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """When production's alias moves, the trial ends; another one begins once the new version serves."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.look("2.0", production="1.1")
    assert (scene.service.trial, scene.candidates.reserved) == (None, 0)
    replacement = StubBackend()
    replacement.info = replace(replacement.info, version="1.1")
    scene.service.replace_backend(replacement)
    await scene.look("2.0", production="1.1")
    assert await scene.serve() == "2.0"
    assert scene.candidates.opened == ["2.0", "2.0"]


async def test_what_was_found_last_is_written_at_the_end(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """A process that shuts down writes the findings since its last check."""
    scene = make_scene(backend, make_service, clock)
    await scene.look("2.0")
    await scene.serve()
    following = asyncio.create_task(scene.follower.follow())
    await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait([following])
    assert scene.evidence.written
    assert scene.service.trial is None


async def test_an_unexpected_error_of_the_registry_does_not_end_the_following(
    backend: GatedBackend, make_service: MakeService, clock: FakeClock
) -> None:
    """After an unexpected error without a trial, which is reported once, the next checks find the candidate."""
    scene = make_scene(backend, make_service, clock)
    scene.candidates.contest, scene.candidates.unexpected = make_contest("2.0"), OSError("disk error")
    checks = 0

    async def count(_: float) -> None:
        nonlocal checks
        checks += 1
        if checks == 4:
            scene.candidates.unexpected = None
        await asyncio.sleep(0)

    following = asyncio.create_task(scene.follower.follow(count))
    await wait_until_async(lambda: scene.service.trial is not None)
    following.cancel()
    await asyncio.wait([following])
    assert scene.reports.events[:2] == [("OSError", ""), ("start", "2.0")]
