"""Calibration, abstention and prediction sets over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from api.schemas.predictions import PredictionResponse
from api.settings import Settings
from model.backends.stub import StubBackend
from model.confidence.abstention import AbstentionRules, AerialGate
from model.confidence.calibration import calibrate
from model.confidence.model import ConfidenceModel
from model.confidence.policy import AbstentionPolicy
from model.confidence.prediction_sets import ConformalScores
from tests.model.serving.gated import png

TEMPERATURE = 2.0
# The stub pools the mean red, green and blue: images with more than half of the red are not aerial.
GATE = AerialGate(np.array([-1, 0, 0], np.float32), 0.5)
SCORES = ConformalScores((np.arange(1, 20) / 20).astype(np.float32))
CONFIDENCE = ConfidenceModel(TEMPERATURE, AbstentionRules(GATE, min_confidence=0.195), SCORES)
NOT_AERIAL, UNSURE, SURE = png(200), png(60), png(110)
ROUTES = ("/v1/predictions", "/predict-land-use")
Bearer = dict[str, str]


@pytest.fixture
def make_gateway(make_client: Any, settings: Settings, log_in: Any) -> Any:
    """Start a gateway with a policy; returns a client that has the user's token."""

    def make(policy: AbstentionPolicy = AbstentionPolicy.MARK, confidence: ConfidenceModel = CONFIDENCE) -> TestClient:
        model = settings.model.model_copy(update={"abstain": policy})
        client: TestClient = make_client(model=model, open_model=lambda: StubBackend(confidence=confidence))
        client.headers.update(log_in(client))
        return client

    return make


def send(client: TestClient, image: bytes, path: str = "/v1/predictions") -> Any:
    return client.post(path, files={"file": image})


def test_abstentions_are_marked_by_default(make_gateway: Any) -> None:
    """The versioned route says whether the model abstains and why, and still ranks the labels."""
    client = make_gateway()
    bodies = [send(client, image).json() for image in (NOT_AERIAL, UNSURE, SURE)]
    assert [(body["abstained"], body["reason"]) for body in bodies] == [
        (True, "not_an_aerial_image"),
        (True, "low_confidence"),
        (False, None),
    ]
    for body in bodies:
        assert body["predictions"][0] == {"label": body["label"], "probability": body["confidence"]}
        assert len(body["predictions"]) == 5
        assert (body["coverage"], body["prediction_set"]) == (None, None)


def test_both_routes_agree_about_the_class_and_differ_in_the_probabilities(make_gateway: Any) -> None:
    """/predict-land-use returns its five fields and the raw vector, /v1/predictions the calibrated vector."""
    client = make_gateway()
    for image in (NOT_AERIAL, SURE):
        original = send(client, image, "/predict-land-use").json()
        body = send(client, image, "/v1/predictions?top_k=21").json()
        assert set(original) == {"prediction", "prediction_probability", "label", "model", "id"}
        assert original["label"] == body["label"]
        raw = np.array(original["prediction_probability"][0], np.float32)
        assert raw.argmax() == original["prediction"]
        calibrated = sorted(calibrate(raw, TEMPERATURE).tolist(), reverse=True)
        assert [row["probability"] for row in body["predictions"]] == calibrated
        assert sum(calibrated) == pytest.approx(1, abs=1e-5)
        assert calibrated != sorted(raw.tolist(), reverse=True)


@pytest.mark.usefixtures("within_one_month")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("image", "code"), [(NOT_AERIAL, "not_an_aerial_image"), (UNSURE, "low_confidence")])
def test_abstentions_can_be_rejected(make_gateway: Any, route: str, image: bytes, code: str) -> None:
    """Under `refuse` both routes respond with 422; the request is charged, and the history has its prediction."""
    client = make_gateway(AbstentionPolicy.REFUSE)
    response = send(client, image, route)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "abstains" in response.json()["detail"]
    assert send(client, SURE, route).status_code == 200
    assert client.get("/v1/usage").json()["requests"] == 2
    _, refused = client.get("/v1/predictions").json()["entries"]
    assert (refused["status"], refused["code"], refused["abstained"], refused["reason"]) == (422, code, True, code)
    assert refused["label"] == refused["predictions"][0]["label"]


@pytest.mark.parametrize("image", [NOT_AERIAL, UNSURE], ids=["photograph", "unsure"])
def test_abstaining_can_be_switched_off(make_gateway: Any, image: bytes) -> None:
    """Under `off` no prediction is marked or rejected."""
    client = make_gateway(AbstentionPolicy.OFF)
    body = send(client, image).json()
    assert (body["abstained"], body["reason"]) == (False, None)
    assert send(client, image, "/predict-land-use").status_code == 200


def test_a_past_prediction_has_the_fields_of_its_response(make_gateway: Any) -> None:
    """The history shows the calibrated probabilities and the reason, for predictions of both routes."""
    client = make_gateway()
    body = send(client, UNSURE, "/v1/predictions?top_k=21").json()
    found = client.get(f"/v1/predictions/{body['id']}").json()
    for name in ("label", "confidence", "abstained", "reason", "predictions"):
        assert found[name] == body[name]
    original = send(client, UNSURE, "/predict-land-use").json()
    assert client.get(f"/v1/predictions/{original['id']}").json()["predictions"] == body["predictions"]
    assert send(client, b"text").status_code == 415
    send(client, UNSURE)  # the rejected request is recorded with it at the latest
    rejected = next(e for e in client.get("/v1/predictions").json()["entries"] if e["code"] == "unsupported_image")
    assert (rejected["abstained"], rejected["reason"]) == (None, None)


def test_a_prediction_set_is_added_on_request(make_gateway: Any) -> None:
    """The set holds the labels whose calibrated probability reaches the limit of the coverage, best first."""
    client = make_gateway()
    body = send(client, SURE, "/v1/predictions?top_k=21&coverage=0.95").json()
    assert PredictionResponse.model_validate(body).model_dump(mode="json") == body
    assert body["coverage"] == 0.95
    # Rank 19 of 19 scores: everything with at least 1 - 0.95.
    assert body["prediction_set"] == [row for row in body["predictions"] if row["probability"] >= 0.05]
    assert 1 < len(body["prediction_set"]) < 21
    smaller = send(client, SURE, "/v1/predictions?coverage=0.5").json()["prediction_set"]
    assert smaller == body["prediction_set"][: len(smaller)]
    assert smaller[0]["label"] == body["label"]


def test_more_coverage_than_can_be_guaranteed_gives_all_labels(make_gateway: Any) -> None:
    """With 19 scores, only the set of all classes guarantees a coverage of 0.96."""
    body = send(make_gateway(), SURE, "/v1/predictions?coverage=0.96").json()
    assert len(body["prediction_set"]) == 21


def test_a_model_without_scores_has_no_sets(make_gateway: Any) -> None:
    """A set of a model without conformal scores is a 409 that says what to do, and nothing is charged."""
    client = make_gateway(confidence=ConfidenceModel())
    response = send(client, SURE, "/v1/predictions?coverage=0.9")
    assert (response.status_code, response.json()["code"]) == (409, "prediction_sets_unavailable")
    assert "without `coverage`" in response.json()["detail"]
    assert client.get("/v1/usage").json()["requests"] == 0


@pytest.mark.parametrize("coverage", ["0.49", "1", "nan", "most"])
def test_a_coverage_out_of_range_is_rejected(make_gateway: Any, coverage: str) -> None:
    """A coverage below one half, of 1, or that is not a number is an invalid parameter."""
    response = send(make_gateway(), SURE, f"/v1/predictions?coverage={coverage}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["errors"][0]["field"] == "query.coverage"
