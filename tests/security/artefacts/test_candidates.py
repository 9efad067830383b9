"""A candidate on trial harms no caller, and no caller can choose to be served by it: T57."""

from __future__ import annotations

import asyncio
from pathlib import Path

from model.backends.stub import StubBackend
from model.canary.assignment import CallerAssignment
from model.canary.pairing import Arm
from model.imaging.input_spec import InputSpec
from model.registry.files import FileRegistry
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from model.signing.folder import sign_folder
from model.signing.keys import encode_public_key
from tests.model.backends.tiny_onnx import write_tiny_artefact
from tests.model.canary.trials import Candidate, fail, start_trial
from tests.model.serving.gated import png
from tests.model.signing.forging import new_key
from tests.support.gateway import running_gateway
from tests.support.polling import wait_until


def make_service() -> PredictionService:
    return PredictionService(StubBackend(), workers=1, limits=QueueLimits(8, 2.0), on_stage=lambda *_: None)


async def test_a_hanging_shadow_delays_nobody() -> None:
    """While a shadow candidate hangs, callers get their responses from production."""
    service, candidate = make_service(), Candidate()
    candidate.gate.clear()
    start_trial(service, candidate)
    for value in range(20):
        prediction = await service.predict(png(value), caller="ana")
        assert prediction.model.version == "1.0"
        if prediction.follow_up is not None:
            prediction.follow_up.complete_later("id")
        await asyncio.sleep(0)
    candidate.gate.set()
    service.end_trial()
    service.close()


async def test_callers_of_a_failing_candidate_see_no_error() -> None:
    """A caller who is assigned to a candidate that always fails gets production's response to the same request."""
    service = make_service()
    start_trial(service, Candidate(fail), arm=Arm.CANDIDATE, serves_callers=True)
    for value in range(20):
        assert (await service.predict(png(value), caller="ana")).model.version == "1.0"
    service.end_trial()
    service.close()


def test_an_unsigned_candidate_is_not_tried(tmp_path: Path) -> None:
    """A gateway that requires signatures does not load an unsigned candidate, and logs the reason."""
    key, registry = new_key(), FileRegistry(tmp_path / "registry")
    for version in ("1.0", "1.1"):
        folder = tmp_path / version
        folder.mkdir()
        write_tiny_artefact(folder, InputSpec(16, 16), version=version)
        if version == "1.0":
            sign_folder(folder, key)
        registry.add(folder)
    registry.move_aliases("tiny", {"production": "1.0", "candidate": "1.1"}, who="cli:olga", why="a test")
    settings = {
        "MODEL__REGISTRY": f"file://{tmp_path}/registry",
        "MODEL__URL": "registry://tiny",
        "MODEL__VERIFY_KEY": encode_public_key(key.public_key()),
    }
    with running_gateway(None, **settings) as gateway:
        wait_until(lambda: '"candidate_not_tried"' in gateway.log(), message=gateway.log)
        assert "artefact_unsigned" in gateway.log()


def test_who_is_chosen_depends_on_a_secret() -> None:
    """Which callers a candidate serves depends on a secret key, so that it cannot be derived from their names."""
    callers = [f"caller-{number}" for number in range(200)]
    chosen = [
        {name for name in callers if CallerAssignment(key, "digest").is_assigned(name, 0.5)} for key in (b"one", b"two")
    ]
    assert 60 < len(chosen[0] ^ chosen[1]) < 140
