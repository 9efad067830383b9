"""Requests during a trial: which model responds, what is compared after the response, and what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from model.backends.stub import StubBackend
from model.canary.evidence import Evidence, Metric, Tally
from model.canary.pairing import Arm
from model.canary.trial import ShadowOutcome
from model.confidence.abstention import AbstentionRules, AerialGate
from model.confidence.model import ConfidenceModel
from model.errors import DeadlineExceeded
from model.serving.prediction import Prediction
from model.serving.service import PredictionService
from tests.model.canary.trials import (
    Candidate,
    Outputs,
    fail,
    return_nothing_finite,
    return_wrong_features,
    reverse_classes,
    start_trial,
)
from tests.model.serving.gated import GatedBackend, MakeService, png
from tests.support.polling import wait_until_async

DIFFERENT = {Metric.DISAGREEMENT: Tally(worse=1), Metric.ERROR_RATE: Tally(same=1)}


async def respond(service: PredictionService, value: int = 1, caller: str = "ana") -> Prediction:
    """Predict as the pipeline does, which starts the follow-up once the prediction is recorded."""
    prediction = await service.predict(png(value), caller=caller)
    if prediction.follow_up is not None:
        prediction.follow_up.complete_later(f"id-{value}")
    return prediction


def without_latency(evidence: Evidence) -> dict[Metric, Tally]:
    """The tallies that do not depend on how fast this machine is."""
    return {metric: tally for metric, tally in evidence.tallies.items() if metric is not Metric.LATENCY}


@pytest.fixture
def service(backend: GatedBackend, make_service: MakeService) -> PredictionService:
    backend.gate.set()
    return make_service(workers=1, slots=8)


async def test_a_shadow_sees_the_image_after_the_response(service: PredictionService) -> None:
    """Production responds without waiting for the candidate, which then classifies the same image."""
    candidate = Candidate(reverse_classes)
    candidate.gate.clear()
    trial, reports = start_trial(service, candidate)
    assert (await respond(service)).model.version == "1.0"
    assert reports.evidence == Evidence()
    candidate.gate.set()
    await wait_until_async(lambda: reports.shadows)
    assert reports.shadows == {ShadowOutcome.COMPARED: 1}
    assert without_latency(reports.evidence) == DIFFERENT
    findings = trial.take_findings()
    assert findings.evidence == reports.evidence
    assert [pair.prediction_id for pair in findings.pairs] == ["id-1"]
    assert findings.pairs[0].candidate != findings.pairs[0].production
    assert not trial.take_findings()


async def test_the_same_model_agrees_with_itself(service: PredictionService) -> None:
    """A candidate with the same weights agrees with production."""
    _, reports = start_trial(service, Candidate())
    await respond(service)
    await wait_until_async(lambda: reports.shadows)
    assert without_latency(reports.evidence) == {
        Metric.DISAGREEMENT: Tally(same=1),
        Metric.ERROR_RATE: Tally(same=1),
    }


@pytest.mark.parametrize("change", [fail, return_nothing_finite, return_wrong_features])
async def test_a_caller_of_a_failing_candidate_gets_the_response_of_production(
    service: PredictionService, change: Callable[[Outputs], Outputs]
) -> None:
    """If the candidate raises an error or returns unusable outputs, production responds and the failure is counted."""
    candidate = Candidate(change)
    gate = AerialGate(np.zeros(3, np.float32), 1.0)
    candidate.info = replace(candidate.info, confidence=ConfidenceModel(abstention=AbstentionRules(gate)))
    _, reports = start_trial(service, candidate, arm=Arm.CANDIDATE, serves_callers=True)
    for value in range(2):
        assert (await respond(service, value)).model.version == "1.0"
    await wait_until_async(lambda: reports.evidence.get(Metric.ERROR_RATE).comparisons == 2)
    assert reports.evidence.tallies == {Metric.ERROR_RATE: Tally(worse=2)}
    assert len(reports.errors) == 1
    assert not reports.shadows


async def test_a_candidate_responds_to_its_callers_and_production_sees_their_images(
    backend: GatedBackend, service: PredictionService
) -> None:
    """Callers of the candidate get its response, which names it; production classifies the image afterwards."""
    _, reports = start_trial(service, Candidate(reverse_classes), arm=Arm.CANDIDATE, serves_callers=True)
    assert (await respond(service)).model.version == "2.0"
    await wait_until_async(lambda: reports.shadows)
    assert backend.calls == 1
    assert without_latency(reports.evidence) == DIFFERENT


async def test_without_spare_capacity_requests_are_paired_in_time(service: PredictionService) -> None:
    """A request to the candidate whose comparison is dropped is paired with the next request to production."""
    candidate = Candidate()
    _, reports = start_trial(service, candidate, arm=Arm.CANDIDATE, serves_callers=True, is_spare=lambda: False)
    assert (await respond(service)).model.version == "2.0"
    await wait_until_async(lambda: reports.shadows)
    assert reports.evidence == Evidence()
    assert (await respond(service, caller="eve")).model.version == "1.0"
    await wait_until_async(lambda: reports.evidence.tallies)
    assert without_latency(reports.evidence) == {Metric.ERROR_RATE: Tally(same=1)}
    assert reports.shadows == {ShadowOutcome.DROPPED: 1}


async def test_a_shadow_without_spare_capacity_sees_nothing(service: PredictionService) -> None:
    """While live requests occupy all workers, images are dropped and counted, and the candidate does not run."""
    candidate = Candidate()
    _, reports = start_trial(service, candidate, is_spare=lambda: False)
    for value in range(5):
        await respond(service, value)
    await wait_until_async(lambda: reports.shadows == {ShadowOutcome.DROPPED: 5})
    assert (candidate.calls, reports.evidence) == (0, Evidence())


async def test_the_backlog_is_bounded(service: PredictionService) -> None:
    """While the candidate is busy with one image, two more wait, and further ones are dropped at once."""
    candidate = Candidate()
    candidate.gate.clear()
    _, reports = start_trial(service, candidate)
    await respond(service)
    await wait_until_async(lambda: candidate.calls)
    for value in range(4):
        await respond(service, value)
    await wait_until_async(lambda: reports.shadows == {ShadowOutcome.DROPPED: 2})
    candidate.gate.set()
    await wait_until_async(lambda: reports.shadows[ShadowOutcome.COMPARED] == 3)


async def test_a_candidate_that_hangs_fails_on_later_images(service: PredictionService) -> None:
    """Once the candidate has been busy with an image for too long, each further image counts as a failure."""
    candidate = Candidate()
    candidate.gate.clear()
    _, reports = start_trial(service, candidate, stuck_s=0.0)
    await respond(service)
    await wait_until_async(lambda: candidate.calls)
    await respond(service, 2)
    await wait_until_async(lambda: reports.evidence.tallies)
    assert reports.evidence.tallies == {Metric.ERROR_RATE: Tally(worse=1)}
    candidate.gate.set()


async def test_a_candidate_that_misses_a_deadline_fails(service: PredictionService) -> None:
    """A request that reaches its deadline while the candidate works on it counts as an error of the candidate."""
    candidate = Candidate()
    candidate.gate.clear()
    _, reports = start_trial(service, candidate, arm=Arm.CANDIDATE, serves_callers=True)
    request = asyncio.create_task(service.predict(png(1), caller="ana"))
    await wait_until_async(lambda: candidate.calls)
    service.expire_all()
    with pytest.raises(DeadlineExceeded):
        await request
    candidate.gate.set()
    await respond(service, caller="eve")
    await wait_until_async(lambda: reports.evidence.tallies)
    assert reports.evidence.tallies == {Metric.ERROR_RATE: Tally(worse=1)}


async def test_a_failure_of_both_models_is_no_difference(service: PredictionService) -> None:
    """An image on which production fails too does not count against the candidate; the caller gets the error."""
    service.replace_backend(Candidate(fail))
    _, reports = start_trial(service, Candidate(fail))
    with pytest.raises(RuntimeError):
        await respond(service)
    await wait_until_async(lambda: reports.evidence.tallies)
    assert reports.evidence.tallies == {Metric.ERROR_RATE: Tally(same=1)}


async def test_a_trial_ends_when_production_is_replaced(service: PredictionService) -> None:
    """When production is replaced, the trial closes, and images that wait for the candidate are not compared."""
    candidate = Candidate()
    candidate.gate.clear()
    trial, reports = start_trial(service, candidate)
    for value in range(2):
        await respond(service, value)
    await wait_until_async(lambda: candidate.calls)
    previous = service.replace_backend(StubBackend())
    assert (trial.is_open, service.trial) == (False, None)
    unused = trial.candidate.retire()
    assert not unused.done()
    candidate.gate.set()
    await wait_until_async(lambda: unused.done() and previous.done())
    assert reports.evidence == Evidence()
    assert (await respond(service)).follow_up is None


async def test_the_candidate_of_a_cancelled_request_stays_until_its_thread_is_done(service: PredictionService) -> None:
    """The candidate is not released while the thread of a cancelled request still uses it."""
    candidate = Candidate()
    candidate.gate.clear()
    trial, _ = start_trial(service, candidate, arm=Arm.CANDIDATE, serves_callers=True)
    request = asyncio.create_task(service.predict(png(1), caller="ana"))
    await wait_until_async(lambda: candidate.calls)
    request.cancel()
    await asyncio.wait([request])
    service.end_trial()
    unused = trial.candidate.retire()
    assert not unused.done()
    candidate.gate.set()
    await wait_until_async(unused.done)


async def test_a_client_that_leaves_production_is_no_evidence(backend: GatedBackend, make_service: MakeService) -> None:
    """A request that is cancelled while production classifies its image counts for neither model."""
    service = make_service(workers=2, slots=8)
    candidate = Candidate()
    _, reports = start_trial(service, candidate)
    request = asyncio.create_task(service.predict(png(1), caller="ana"))
    await wait_until_async(lambda: backend.calls)
    request.cancel()
    await asyncio.wait([request])
    backend.gate.set()
    await respond(service, 2)
    await wait_until_async(lambda: reports.shadows)
    assert reports.shadows == {ShadowOutcome.COMPARED: 1}
    assert reports.evidence.get(Metric.ERROR_RATE) == Tally(same=1)
    assert candidate.calls == 1
