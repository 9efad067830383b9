"""Drift over HTTP, and in the metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.services.background.activity import Activity
from api.services.measuring.quality import QualityService
from api.settings import Settings
from monitoring.metrics import Metrics
from storage.engine import open_blocking_engine
from tests.api.commands.models.drifting import DARK, build_predictions, record
from tests.api.conftest import MakeClient

MODEL = "efficientnetb0-v1.1"
Bearer = dict[str, str]


def test_the_route_reports_what_was_recorded(
    client: TestClient, log_in: Callable[..., Bearer], settings: Settings
) -> None:
    """Predictions that have just been recorded are in the report, with the reference and the recent means."""
    record(settings.database_url.get_secret_value(), build_predictions(DARK, 150))
    response = client.get("/v1/drift", headers=log_in(client, "olga"))
    assert response.status_code == 200
    report = response.json()
    assert report["drifting"]
    who = {each["caller"] for each in report["findings"] if each["metric"] == "brightness"}
    assert who == {None, "ana"}
    (model,) = report["models"]
    assert (model["model"], model["predictions"], model["callers"]) == (MODEL, 150, 1)
    (brightness,) = (each for each in model["measures"] if each["name"] == "brightness")
    assert brightness["recent"] < 0.7 * brightness["reference"]


def test_each_gateway_shows_the_predictions_of_all(
    make_client: MakeClient, log_in: Callable[..., Bearer], settings: Settings
) -> None:
    """Two gateways with one database report the same drift, although each has processed half of the predictions."""
    url, gateways = settings.database_url.get_secret_value(), (make_client(), make_client())
    predictions = build_predictions(DARK, 120)
    for number, gateway in enumerate(gateways):
        record(url, predictions[60 * number : 60 * (number + 1)])
        assert gateway.get("/v1/drift", headers=log_in(gateway, "olga")).status_code == 200
    first, second = (each.get("/v1/drift", headers=log_in(each, "olga")).json() for each in gateways)
    assert first == second
    assert first["models"][0]["predictions"] == 120
    assert (first["findings"][0]["caller"], first["drifting"]) == (None, True)


def test_a_model_without_a_reference_is_not_watched(
    client: TestClient, bearer: Bearer, log_in: Callable[..., Bearer], sample: bytes
) -> None:
    """A model without a reference, such as the stub, is not in the report."""
    assert client.post("/v1/predictions", files={"file": sample}, headers=bearer).status_code == 200
    report = client.get("/v1/drift", headers=log_in(client, "olga")).json()
    assert report == {"drifting": False, "findings": [], "models": []}


def test_the_scope_is_required(client: TestClient, bearer: Bearer) -> None:
    """A caller without the operator's scope may not read the report."""
    assert client.get("/v1/drift", headers=bearer).status_code == 403


async def test_metrics_follow_the_ledger(client: TestClient, settings: Settings) -> None:
    """A refresh sets how many callers drift, whether all together do, and the means of the measures."""
    url = settings.database_url.get_secret_value()
    assert client.get("/livez").status_code == 200
    record(url, build_predictions(DARK, 150))
    record(url, build_predictions("test", 20, "bob"))
    registry = CollectorRegistry()
    service = QualityService(open_blocking_engine(url), Metrics(registry), settings)
    await service.refresh(Activity(None))
    await service.close()

    def read(name: str, metric: str = "brightness") -> float:
        value = registry.get_sample_value(f"atalaya_drift_{name}", {"model": MODEL, "metric": metric})
        assert value is not None
        return value

    assert (read("callers"), read("overall")) == (1, 1)
    assert (read("callers", "gate_score"), read("overall", "gate_score")) == (0, 0)
    assert read("recent") < read("reference")
