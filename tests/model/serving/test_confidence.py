"""The confidence of a prediction, and the reason to abstain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionReason, AbstentionRules, AerialGate
from model.confidence.calibration import calibrate
from model.confidence.model import ConfidenceModel
from model.imaging.decode import decode_image
from model.imaging.input_spec import DEFAULT_INPUT
from model.serving.overload_policy import QueueLimits
from model.serving.service import PredictionService
from tests.model.serving.gated import png

REDDISH, PALE = png(90), png(240)
# The pooled features of the stub are the mean red, green and blue: pale images are not aerial.
NO_PALE_IMAGES = AerialGate(np.array([-1, 0, 0], np.float32), 0.5)


@pytest.fixture(scope="module")
def service() -> Iterator[PredictionService]:
    rules = AbstentionRules(NO_PALE_IMAGES, min_confidence=0.2)
    backend = StubBackend(confidence=ConfidenceModel(temperature=0.5, abstention=rules))
    service = PredictionService(backend, workers=1, limits=QueueLimits(), on_stage=lambda *_: None)
    yield service
    service.close()


async def test_a_prediction_holds_raw_and_calibrated_probabilities(service: PredictionService) -> None:
    """Raw probabilities are the back end's, bit for bit; the confidence and the ranked labels are calibrated."""
    prediction = await service.predict(REDDISH)
    raw = StubBackend().predict(decode_image(REDDISH, DEFAULT_INPUT).pixels[np.newaxis])[0]
    assert np.array_equal(prediction.probabilities, raw)
    assert np.array_equal(prediction.calibrated, calibrate(raw, 0.5))
    assert prediction.index == int(raw.argmax())
    assert prediction.confidence == float(prediction.calibrated.max()) > float(raw.max())
    assert prediction.top(1) == [(prediction.label, prediction.confidence)]
    assert sum(probability for _, probability in prediction.top(21)) == pytest.approx(1)


async def test_the_gate_decides_from_the_pooled_features(service: PredictionService) -> None:
    """An image that the gate rejects has a reason to abstain, and still its most probable class."""
    prediction = await service.predict(PALE)
    assert prediction.reason is AbstentionReason.NOT_AERIAL
    assert prediction.label == prediction.model.classes[int(prediction.probabilities.argmax())]
    assert (await service.predict(REDDISH)).reason is not AbstentionReason.NOT_AERIAL


@pytest.mark.parametrize(("temperature", "reason"), [(0.01, None), (100.0, AbstentionReason.LOW_CONFIDENCE)])
async def test_the_minimum_applies_to_the_calibrated_confidence(
    temperature: float, reason: AbstentionReason | None
) -> None:
    """The same raw probabilities reach the minimum at one temperature and not at another."""
    confidence = ConfidenceModel(temperature, AbstentionRules(min_confidence=0.5))
    backend = StubBackend(confidence=confidence)
    service = PredictionService(backend, workers=1, limits=QueueLimits(), on_stage=lambda *_: None)
    assert (await service.predict(REDDISH)).reason is reason
    service.close()
