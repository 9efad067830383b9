"""The quality of a model over HTTP, and in the metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event
from starlette.testclient import TestClient

from api.app import create_app
from api.cli import run
from api.services.background.activity import Activity
from api.services.measuring.quality import QualityService
from api.settings import Settings
from monitoring.metrics import Metrics
from storage.engine import open_blocking_engine
from tests.monitoring.quality.entries import append, build_label, build_prediction

Bearer = dict[str, str]


@pytest.fixture
def labelled(client: TestClient, bearer: Bearer, sample: bytes) -> list[Any]:
    """Four predictions, of which the first is labelled as correct, the second as wrong."""
    predictions = [client.post("/v1/predictions", files={"file": sample}, headers=bearer).json() for _ in range(4)]
    right = predictions[0]["label"]
    for prediction, label in zip(predictions, (right, "river" if right != "river" else "beach"), strict=False):
        response = client.post(f"/v1/predictions/{prediction['id']}/label", json={"label": label}, headers=bearer)
        assert response.status_code == 201
    return predictions


def test_results_and_estimate_are_side_by_side(client: TestClient, operator: Bearer, labelled: list[Any]) -> None:
    """The response has accuracy and calibration error of the labelled predictions, and the estimate from all."""
    quality = client.get("/v1/models/stub/quality", headers=operator).json()
    assert (quality["model"], quality["since"]) == ("stub", None)
    (version,) = quality["versions"]
    assert (version["version"], version["predictions"], version["abstained"], version["labelled"]) == ("1.0", 4, 0, 2)
    assert version["accuracy"] == {
        "value": 0.5,
        "lower": pytest.approx(0.0945, abs=1e-4),
        "upper": pytest.approx(0.9055, abs=1e-4),
    }
    confidence = labelled[0]["confidence"]
    assert version["ece"] == pytest.approx(abs(confidence - 0.5))
    assert version["estimated_accuracy"]["value"] == pytest.approx(confidence)
    assert version["classes"] == []
    assert sum(version["few_labels"].values()) == 2


def test_version_and_time_select(client: TestClient, operator: Bearer, labelled: list[Any]) -> None:
    """`version` and `since` select the predictions; `since` is rounded down to the hour."""
    selected = client.get("/v1/models/stub/quality?version=1.0&since=2026-01-01T10:59:00%2B01:00", headers=operator)
    assert selected.json()["since"] == "2026-01-01T09:00:00Z"
    assert [version["predictions"] for version in selected.json()["versions"]] == [len(labelled)]
    for query in ("version=2.0", "since=2100-01-01T00:00:00Z"):
        response = client.get(f"/v1/models/stub/quality?{query}", headers=operator)
        assert (response.status_code, response.json()["code"]) == (404, "model_not_recorded")


def test_the_command_prints_what_the_route_returns(
    settings: Settings,
    log_in: Callable[..., Bearer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`atalaya models quality --json` prints the document that the route returns for the same options."""
    url = settings.database_url.get_secret_value()
    first, *_ = append(url, [build_prediction(), build_prediction(), build_prediction(version="2.0")])
    append(url, [build_label(first)])
    choices: tuple[dict[str, str], ...] = {}, {"version": "1.0", "since": "2026-01-01T10:59:00+01:00"}
    with TestClient(create_app(settings, registry=CollectorRegistry())) as client:
        operator = log_in(client, "olga")
        path = "/v1/models/tiny/quality"
        returned = [client.get(path, params=options, headers=operator).json() for options in choices]
    assert [len(document["versions"]) for document in returned] == [2, 1]
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("LEDGER__SIGNING_KEY", settings.ledger_key())
    for options, document in zip(choices, returned, strict=True):
        capsys.readouterr()
        arguments = [f"--{name}={value}" for name, value in options.items()]
        assert run(["models", "quality", "tiny", "--json", *arguments]) == 0
        assert json.loads(capsys.readouterr().out) == document


def test_abstentions_are_left_out(
    make_client: Any, log_in: Callable[..., Bearer], settings: Settings, sample: bytes
) -> None:
    """Predictions for which the model abstained are counted separately, and their labels are not counted."""
    client = make_client(model=settings.model.model_copy(update={"url": "stub://?min_confidence=1"}))
    prediction = client.post("/v1/predictions", files={"file": sample}, headers=log_in(client)).json()
    assert prediction["abstained"]
    path = f"/v1/predictions/{prediction['id']}/label"
    assert client.post(path, json={"label": prediction["label"]}, headers=log_in(client)).status_code == 201
    (version,) = client.get("/v1/models/stub/quality", headers=log_in(client, "olga")).json()["versions"]
    assert (version["predictions"], version["abstained"], version["labelled"]) == (0, 1, 0)
    assert (version["accuracy"], version["ece"], version["estimated_accuracy"]) == (None, None, None)


@pytest.mark.parametrize(
    "query", ["since=yesterday", "since=2026-01-01T00:00:00", "since=0001-01-01T00:00:00%2B10:00", "since=5"]
)
def test_malformed_times_are_rejected(client: TestClient, operator: Bearer, query: str) -> None:
    """A time without a date or an offset, or out of range in UTC, gets 422."""
    assert client.get(f"/v1/models/stub/quality?{query}", headers=operator).status_code == 422


def test_the_scope_is_required(client: TestClient, bearer: Bearer, operator: Bearer) -> None:
    """A client may not read the results; an operator may, and gets 404 while there are none."""
    assert client.get("/v1/models/stub/quality", headers=bearer).status_code == 403
    response = client.get("/v1/models/stub/quality", headers=operator)
    assert (response.status_code, response.json()["code"]) == (404, "model_not_recorded")


async def test_metrics_follow_the_ledger(labelled: list[Any], settings: Settings) -> None:
    """A refresh sets accuracy, its lower bound and the estimate of each version that has made predictions."""
    registry = CollectorRegistry()
    engine = open_blocking_engine(settings.database_url.get_secret_value())
    service = QualityService(engine, Metrics(registry), settings)
    await service.refresh(Activity(None))
    await service.close()
    values = [
        registry.get_sample_value(f"atalaya_{name}", {"model": "stub-v1.0"})
        for name in ("live_accuracy", "live_accuracy_lower", "estimated_accuracy")
    ]
    assert values == [0.5, pytest.approx(0.0945, abs=1e-4), pytest.approx(labelled[0]["confidence"])]


async def test_labels_are_counted_again_only_after_a_new_one(
    client: TestClient, bearer: Bearer, labelled: list[Any], settings: Settings
) -> None:
    """A refresh counts the labels, which is slow if there are many, only if one was added since the last."""
    registry, engine = CollectorRegistry(), open_blocking_engine(settings.database_url.get_secret_value())
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    service = QualityService(engine, Metrics(registry), settings)

    async def refresh() -> bool:
        """Refresh, and return whether the labels were counted."""
        statements.clear()
        await service.refresh(Activity(None))
        return any("ledger_labels.predicted = ledger_labels.label" in statement for statement in statements)

    assert [await refresh(), await refresh()] == [True, False]
    path = f"/v1/predictions/{labelled[2]['id']}/label"
    assert client.post(path, json={"label": labelled[2]["label"]}, headers=bearer).status_code == 201
    assert await refresh()
    accuracy = registry.get_sample_value("atalaya_live_accuracy", {"model": "stub-v1.0"})
    assert accuracy == pytest.approx(2 / 3)
    await service.close()
