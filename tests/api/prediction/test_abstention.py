"""What the pipeline does when a model abstains, under each policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionReason, AbstentionRules
from model.confidence.calibration import calibrate
from model.confidence.model import ConfidenceModel
from model.confidence.policy import AbstentionPolicy
from model.errors import LowConfidence, SetsUnavailable
from tests.api.prediction.transport import OpenTransport
from tests.model.serving.gated import png

IMAGE = png(1)
TEMPERATURE = 3.0
UNSURE = ConfidenceModel(TEMPERATURE, AbstentionRules(min_confidence=0.999))


def check_output(output: dict[str, Any], policy: str, reason: str | None) -> None:
    """Check that the record has the raw vector, and the confidence calibrated with the recorded temperature."""
    raw = np.array(list(output["probabilities"].values()), np.float32)
    assert raw.sum() == pytest.approx(1, abs=1e-5)
    assert output["probabilities"][output["label"]] == raw.max()
    assert output["temperature"] == TEMPERATURE
    assert output["confidence"] == float(calibrate(raw, TEMPERATURE).max()) < float(raw.max())
    assert output["abstention"] == {"policy": policy, "reason": reason}


async def test_a_marked_abstention_is_returned_recorded_and_counted(open_transport: OpenTransport) -> None:
    """Under `mark` the prediction is returned with its reason, and the metrics observe its calibrated confidence."""
    async with open_transport(StubBackend(confidence=UNSURE)) as transport:
        prediction = (await transport.run(IMAGE)).prediction
        assert prediction.reason is AbstentionReason.LOW_CONFIDENCE
    assert transport.outcomes == [(200, None, 1)]
    check_output(transport.ledger[0]["output"], "mark", "low_confidence")
    assert transport.ledger[0]["v"] == 2
    assert transport.metric("atalaya_abstentions_total", reason="low_confidence") == 1
    assert transport.metric("atalaya_prediction_confidence_sum") == pytest.approx(prediction.confidence)


async def test_a_rejected_abstention_is_recorded_charged_and_counted(open_transport: OpenTransport) -> None:
    """Under `refuse` the caller gets an error; the entry has the code and the prediction, and the quota is charged."""
    async with open_transport(StubBackend(confidence=UNSURE), abstain=AbstentionPolicy.REFUSE) as transport:
        with pytest.raises(LowConfidence):
            await transport.run(IMAGE)
    assert transport.outcomes == [(422, "low_confidence", 1)]
    check_output(transport.ledger[0]["output"], "refuse", "low_confidence")
    assert transport.ledger[0]["image"]["bytes"] == len(IMAGE)
    assert transport.used_requests == 1
    assert transport.metric("atalaya_abstentions_total", reason="low_confidence") == 1
    label = transport.ledger[0]["output"]["label"]
    assert transport.metric("atalaya_predictions_total", model="stub-v1.0", label=label) == 0
    assert transport.metric("atalaya_prediction_confidence_count") == 0


async def test_nothing_abstains_when_the_policy_is_off(open_transport: OpenTransport) -> None:
    """Under `off` no reason is returned, recorded or counted, but the confidence is still calibrated."""
    async with open_transport(StubBackend(confidence=UNSURE), abstain=AbstentionPolicy.OFF) as transport:
        prediction = (await transport.run(IMAGE)).prediction
    assert prediction.reason is None
    assert transport.outcomes == [(200, None, 1)]
    check_output(transport.ledger[0]["output"], "off", None)
    assert transport.metric("atalaya_abstentions_total", reason="low_confidence") == 0


async def test_a_set_that_the_model_cannot_give_costs_nothing(open_transport: OpenTransport) -> None:
    """A request for a prediction set is rejected before its body is read if the model has no conformal scores."""
    async with open_transport() as transport:
        with pytest.raises(SetsUnavailable):
            await transport.run(IMAGE, with_set=True)
        with pytest.raises(SetsUnavailable):
            await transport.pipeline.dry_run(transport.request(IMAGE, with_set=True))
    assert sum(count for _, _, count in transport.outcomes) == 2
    assert {outcome[:2] for outcome in transport.outcomes} == {(409, "prediction_sets_unavailable")}
    assert (transport.bodies_read, transport.used_requests) == (0, 0)
