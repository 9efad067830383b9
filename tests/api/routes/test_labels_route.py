"""True labels of past predictions over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.prediction.labels import MAX_LABELS
from api.settings import Settings
from monitoring.chains.signing import Signer
from monitoring.ledger.upkeep.erasure import Eraser
from monitoring.ledger.upkeep.pruning import Pruner
from storage.engine import open_blocking_engine
from storage.transactions import WRITING

Bearer = dict[str, str]
UNKNOWN = "01a2073c-bc9a-7019-bf0d-15032078e849"


def predict(client: TestClient, headers: Bearer, sample: bytes) -> Any:
    response = client.post("/v1/predictions", files={"file": sample}, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def send_label(client: TestClient, headers: Bearer, prediction_id: str, label: str = "forest") -> Any:
    return client.post(f"/v1/predictions/{prediction_id}/label", json={"label": label}, headers=headers)


def get_code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_a_label_is_recorded_and_shown(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """The response says whether the prediction was correct; the label is shown with the prediction and in the list."""
    prediction = predict(client, bearer, sample)
    response = send_label(client, bearer, prediction["id"].upper(), "river")
    assert response.status_code == 201
    recorded = response.json()
    assert recorded == {
        "id": recorded["id"],
        "prediction": prediction["id"],
        "label": "river",
        "predicted": prediction["label"],
        "correct": prediction["label"] == "river",
        "supersedes": None,
    }
    found = client.get(f"/v1/predictions/{prediction['id']}", headers=bearer).json()
    (label,) = found["labels"]
    assert label == {"id": recorded["id"], "at": label["at"], "label": "river", "by": "owner", "superseded": False}
    (listed,) = client.get("/v1/predictions", headers=bearer).json()["entries"]
    assert listed == found


def test_a_second_label_supersedes_the_first(
    client: TestClient, bearer: Bearer, operator: Bearer, sample: bytes
) -> None:
    """Both labels stay visible, oldest first, with the role of the sender; the second names the first."""
    prediction = predict(client, bearer, sample)["id"]
    first = send_label(client, bearer, prediction, "river").json()
    second = send_label(client, operator, prediction, "forest").json()
    assert second["supersedes"] == first["id"]
    labels = client.get(f"/v1/predictions/{prediction}", headers=bearer).json()["labels"]
    assert [(each["label"], each["by"], each["superseded"]) for each in labels] == [
        ("river", "owner", True),
        ("forest", "operator", False),
    ]


def test_labels_are_bounded(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A prediction accepts at most MAX_LABELS labels, because a response shows all of them."""
    prediction = predict(client, bearer, sample)["id"]
    assert {send_label(client, bearer, prediction).status_code for _ in range(MAX_LABELS)} == {201}
    assert get_code(send_label(client, bearer, prediction)) == (409, "too_many_labels")


def test_concurrent_labels_are_bounded(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A prediction accepts at most MAX_LABELS labels, even if more arrive at the same time."""
    prediction = predict(client, bearer, sample)["id"]
    with ThreadPoolExecutor(2 * MAX_LABELS) as threads:
        sent = [threads.submit(send_label, client, bearer, prediction) for _ in range(2 * MAX_LABELS)]
        statuses = Counter(each.result().status_code for each in sent)
    assert statuses == {201: MAX_LABELS, 409: MAX_LABELS}


def test_only_classes_of_the_model_are_labels(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A label that the prediction's model does not have is rejected, with a list of the labels that it has."""
    prediction = predict(client, bearer, sample)["id"]
    response = send_label(client, bearer, prediction, "volcano")
    assert get_code(response) == (422, "unknown_label")
    assert "agricultural, airplane" in response.json()["detail"]
    assert client.get(f"/v1/predictions/{prediction}", headers=bearer).json()["labels"] == []


@pytest.mark.parametrize("body", [{}, {"label": ""}, {"label": 3}, {"label": "forest", "sure": True}])
def test_malformed_bodies_are_rejected(client: TestClient, bearer: Bearer, body: dict[str, Any]) -> None:
    """A body that is not exactly one label is rejected."""
    response = client.post(f"/v1/predictions/{UNKNOWN}/label", json=body, headers=bearer)
    assert get_code(response) == (422, "invalid_request")


def test_a_rejected_request_has_nothing_to_label(client: TestClient, bearer: Bearer, sample: bytes) -> None:
    """A request that got no prediction cannot be labelled, and neither can a label."""
    assert client.post("/v1/predictions", files={"file": b"text"}, headers=bearer).status_code == 415
    prediction = predict(client, bearer, sample)["id"]  # the rejected request is recorded with it at the latest
    entries = client.get("/v1/predictions", headers=bearer).json()["entries"]
    (refused,) = [entry["id"] for entry in entries if entry["code"] == "unsupported_image"]
    assert get_code(send_label(client, bearer, refused)) == (409, "nothing_to_label")
    label = send_label(client, bearer, prediction).json()["id"]
    assert get_code(send_label(client, bearer, label)) == (404, "prediction_not_found")


def test_an_owner_needs_the_scope_to_predict(
    client: TestClient, bearer: Bearer, log_in: Callable[..., Bearer], sample: bytes
) -> None:
    """An owner's token with only `predictions:read` cannot label a prediction; one with only `predict` can."""
    prediction = predict(client, bearer, sample)["id"]
    reader, predictor = log_in(client, "ana", "predictions:read"), log_in(client, "ana", "predict")
    assert get_code(send_label(client, reader, prediction)) == (403, "insufficient_scope")
    assert send_label(client, predictor, prediction).status_code == 201
    assert client.post(f"/v1/predictions/{prediction}/label", json={"label": "forest"}).status_code == 401


@pytest.fixture
def erase(settings: Settings) -> Callable[[str], int]:
    """A function that erases a subject's entries from the ledger and returns their number."""

    def erase(subject: str) -> int:
        engine = open_blocking_engine(settings.database_url.get_secret_value()).execution_options(**WRITING)
        try:
            return sum(Eraser(engine, Signer(settings.ledger_key()), datetime.now(UTC)).erase(subject))
        finally:
            engine.dispose()

    return erase


def test_an_erased_prediction_is_gone(
    client: TestClient, bearer: Bearer, operator: Bearer, sample: bytes, erase: Callable[[str], int]
) -> None:
    """For an erased prediction an operator gets 410; its former owner, like any other caller, gets 404."""
    prediction = predict(client, bearer, sample)["id"]
    send_label(client, bearer, prediction)
    assert erase(client.get("/v1/me", headers=bearer).json()["subject"]) == 2
    assert get_code(send_label(client, operator, prediction)) == (410, "prediction_erased")
    assert get_code(send_label(client, bearer, prediction)) == (404, "prediction_not_found")


def test_a_pruned_prediction_is_gone(
    client: TestClient, bearer: Bearer, operator: Bearer, sample: bytes, settings: Settings
) -> None:
    """After pruning, an id older than the oldest remaining entry gets 410, whoever asks."""
    old = predict(client, bearer, sample)["id"]
    kept = predict(client, bearer, sample)
    entry = client.get(f"/v1/predictions/{kept['id']}", headers=bearer).json()
    engine = open_blocking_engine(settings.database_url.get_secret_value()).execution_options(**WRITING)
    pruner = Pruner(engine, Signer(settings.ledger_key()), datetime.now(UTC) + timedelta(days=1))
    assert sum(pruner.prune(datetime.fromisoformat(entry["at"]))) == 1
    engine.dispose()
    never = f"{old[:-4]}0000"
    for headers in (bearer, operator):
        assert {get_code(send_label(client, headers, each)) for each in (old, never)} == {(410, "prediction_pruned")}
        assert send_label(client, headers, kept["id"]).status_code == 201


def test_labels_are_counted_by_correctness(settings: Settings, log_in: Callable[..., Bearer], sample: bytes) -> None:
    """Each label counts once in `atalaya_labels_total`, with the model and whether the prediction was correct."""
    registry = CollectorRegistry()
    with TestClient(create_app(settings, registry=registry)) as client:
        headers = log_in(client)
        prediction = predict(client, headers, sample)
        wrong = "river" if prediction["label"] != "river" else "beach"
        for label in (prediction["label"], wrong, wrong):
            assert send_label(client, headers, prediction["id"], label).status_code == 201
    counts = [
        registry.get_sample_value("atalaya_labels_total", {"model": "stub-v1.0", "correct": correct})
        for correct in ("true", "false")
    ]
    assert counts == [1, 2]
