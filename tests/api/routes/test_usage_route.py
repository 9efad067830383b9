"""Quotas, `/v1/usage` and dry runs over HTTP."""

from __future__ import annotations

import io
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from api.commands.database import run_with_accounts
from api.settings import Settings
from auth.principal import Role
from tests.support.polling import wait_until

# Quotas are reset at the start of each month of the real clock.
pytestmark = pytest.mark.usefixtures("within_one_month")

Bearer = dict[str, str]
LogIn = Callable[..., Bearer]
Limit = Callable[..., None]
ROUTES = ("/v1/predictions", "/predict-land-use", "/predict-land-use/")
PIXELS = 600 * 400


def png(width: int = 600, height: int = 400) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(buffer, "PNG")
    return buffer.getvalue()


def predict(client: TestClient, headers: Bearer, data: bytes, route: str = ROUTES[0], **query: Any) -> Any:
    return client.post(route, params=query, files={"file": data}, headers=headers)


def usage(client: TestClient, headers: Bearer) -> dict[str, Any]:
    response = client.get("/v1/usage", headers=headers)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def wait_until_used(client: TestClient, headers: Bearer, requests: int) -> None:
    """Poll until the deferred charges are in the database."""
    wait_until(lambda: usage(client, headers)["requests"] == requests)


def metric(client: TestClient, headers: Bearer, line: str) -> str | None:
    """The value of one sample in the metrics."""
    lines = client.get("/metrics", headers=headers).text.splitlines()
    return next((used.rpartition(" ")[2] for used in lines if used.startswith(f"{line} ")), None)


def execute(settings: Settings, statement: str, *values: int | None) -> None:
    """Run a statement on the gateway's database, bypassing the gateway."""
    path = settings.database_url.get_secret_value().removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement, values)
    connection.close()


@pytest.fixture
def limit(settings: Settings) -> Limit:
    """Set the monthly quotas of the user `ana`."""

    def set_quotas(requests: int | None = None, megapixels: int | None = None) -> None:
        statement = "UPDATE users SET monthly_requests = ?, monthly_megapixels = ? WHERE name = 'ana'"
        execute(settings, statement, requests, megapixels)

    return set_quotas


@pytest.fixture
def root(client: TestClient, settings: Settings, password: str, log_in: LogIn) -> Bearer:
    """The token of an administrator."""
    run_with_accounts(settings, lambda accounts: accounts.add("root", Role.ADMIN, password))
    return log_in(client, "root")


def test_every_prediction_is_charged(client: TestClient, bearer: Bearer) -> None:
    """Each route charges one request and the pixels of the uploaded image, not of the model's input."""
    for route in ROUTES:
        assert predict(client, bearer, png(), route).status_code == 200
    used = usage(client, bearer)
    assert (used["requests"], used["megapixels"]) == (3, 3 * PIXELS / 1e6)
    assert re.fullmatch(r"\d{4}-\d{2}", used["month"])
    assert used["resets_at"].endswith("-01T00:00:00Z")
    assert used["resets_at"][:7] > used["month"]
    assert used["limits"] == used["remaining"] == {"requests": None, "megapixels": None}
    assert used["key"] is None


@pytest.mark.parametrize("data", [b"", b"text", png()[:20], png()[:-200]], ids=["empty", "text", "header", "pixels"])
def test_a_rejected_image_costs_nothing(client: TestClient, bearer: Bearer, data: bytes) -> None:
    """An image with a broken header or broken pixels is not charged."""
    assert predict(client, bearer, data).status_code in {415, 422}
    assert usage(client, bearer)["requests"] == 0


def test_an_image_broken_after_its_header_uses_no_quota(client: TestClient, bearer: Bearer, limit: Limit) -> None:
    """A request without a prediction leaves the whole quota to later requests."""
    limit(requests=1)
    assert predict(client, bearer, png()[:-200]).json()["code"] == "corrupt_image"
    assert usage(client, bearer)["requests"] == 0
    assert predict(client, bearer, png()).status_code == 200


def test_a_request_over_the_quota_is_rejected(client: TestClient, bearer: Bearer, root: Bearer, limit: Limit) -> None:
    """A request over the quota gets 429 with the seconds until the month ends; it is counted and audited, but free."""
    limit(requests=2)
    statuses = [predict(client, bearer, png(), route).status_code for route in ROUTES]
    assert statuses == [200, 200, 429]
    refused = predict(client, bearer, png())
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "quota_exceeded"
    assert "account's monthly quota of requests" in refused.json()["detail"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 31 * 86_400
    used = usage(client, bearer)
    assert (used["requests"], used["remaining"]["requests"]) == (2, 0)
    assert metric(client, root, 'atalaya_rate_limited_total{limit="quota"}') == "2.0"
    assert metric(client, root, 'atalaya_auth_events_total{event="quota",outcome="refused"}') == "2.0"
    assert metric(client, root, 'atalaya_prediction_stage_seconds_count{stage="commit"}') == "2.0"
    assert metric(client, root, 'atalaya_prediction_stage_seconds_count{stage="decode"}') == "2.0"


def test_megapixels_are_checked_by_the_size_in_the_header(client: TestClient, bearer: Bearer, limit: Limit) -> None:
    """An image whose size exceeds the remaining megapixels is rejected; a smaller one is accepted."""
    limit(megapixels=1)
    assert predict(client, bearer, png(1000, 900)).status_code == 200
    refused = predict(client, bearer, png(1000, 101))
    assert "quota of megapixels" in refused.json()["detail"]
    assert predict(client, bearer, png(1000, 100)).status_code == 200
    assert usage(client, bearer)["remaining"] == {"requests": None, "megapixels": 0.0}


def test_a_key_has_quotas_of_its_own(client: TestClient, bearer: Bearer, limit: Limit) -> None:
    """A key whose quota is used up is rejected while its owner is not; the usage read with the key shows both."""
    limit(requests=5)
    created = client.post("/v1/keys", json={"name": "maps", "monthly_requests": 1}, headers=bearer).json()
    key = {"X-API-Key": created["key"]}
    assert predict(client, key, png()).status_code == 200
    refused = predict(client, key, png())
    assert refused.status_code == 429
    assert "API key's monthly quota" in refused.json()["detail"]
    assert predict(client, bearer, png()).status_code == 200
    used = usage(client, key)
    assert (used["requests"], used["limits"]["requests"], used["remaining"]["requests"]) == (2, 5, 3)
    assert used["key"] == {
        "requests": 1,
        "megapixels": PIXELS / 1e6,
        "limits": {"requests": 1, "megapixels": None},
        "remaining": {"requests": 0, "megapixels": None},
    }


def test_a_rate_limited_request_is_not_charged(
    make_client: Callable[..., TestClient], settings: Settings, log_in: LogIn
) -> None:
    """A request over the rate limit is not charged."""
    client = make_client(limits=settings.limits.model_copy(update={"predict": "1/hour"}))
    bearer = log_in(client)
    assert [predict(client, bearer, png()).status_code for _ in range(3)] == [200, 429, 429]
    assert usage(client, bearer)["requests"] == 1


def test_a_dry_run_returns_the_cost(client: TestClient, bearer: Bearer, root: Bearer, limit: Limit) -> None:
    """A dry run returns the cost and the remaining quota, without charge or inference."""
    limit(requests=3, megapixels=1)
    response = predict(client, bearer, png(), dry_run="true")
    assert response.status_code == 200
    assert response.json() == {
        "cost": {"requests": 1, "megapixels": PIXELS / 1e6},
        "remaining": {"requests": 3, "megapixels": 1.0},
    }
    assert usage(client, bearer)["requests"] == 0
    assert metric(client, root, 'atalaya_prediction_stage_seconds_count{stage="infer"}') == "0.0"


def test_a_dry_run_reads_only_the_header(client: TestClient, bearer: Bearer) -> None:
    """A dry run returns a cost for an image that is broken after its header, and rejects one without a header."""
    broken = png()[:-200]
    assert predict(client, bearer, broken, dry_run="true").json()["cost"]["megapixels"] == PIXELS / 1e6
    assert predict(client, bearer, b"text", dry_run="true").status_code == 415
    assert predict(client, bearer, png(), dry_run="perhaps").status_code == 422


def test_a_dry_run_works_with_the_quota_used_up(client: TestClient, bearer: Bearer, limit: Limit) -> None:
    """A dry run returns the smaller remainder of account and key, even when it is 0."""
    body = {"name": "maps", "monthly_requests": 1, "monthly_megapixels": 7}
    key = {"X-API-Key": client.post("/v1/keys", json=body, headers=bearer).json()["key"]}
    limit(requests=5, megapixels=2)
    left = predict(client, key, png(), dry_run="true").json()["remaining"]
    assert left == {"requests": 1, "megapixels": 2.0}
    assert predict(client, key, png()).status_code == 200
    left = predict(client, key, png(), dry_run="true").json()["remaining"]
    assert left == {"requests": 0, "megapixels": 2.0 - PIXELS / 1e6}


def test_only_administrators_see_other_users_usage(client: TestClient, bearer: Bearer, root: Bearer) -> None:
    """With `users:admin` a caller can read any user's usage by id; without it only the caller's own."""
    predict(client, bearer, png())
    ana, boss = (client.get("/v1/me", headers=headers).json()["subject"] for headers in (bearer, root))
    shown = client.get("/v1/usage", params={"user": ana}, headers=root).json()
    assert (shown["requests"], shown["key"]) == (1, None)
    assert client.get("/v1/usage", params={"user": ana}, headers=bearer).json()["requests"] == 1
    assert client.get("/v1/usage", params={"user": ana.upper()}, headers=root).json()["requests"] == 1
    refused = client.get("/v1/usage", params={"user": boss}, headers=bearer)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/keys"])
def test_unknown_users_are_reported(client: TestClient, root: Bearer, path: str) -> None:
    """An administrator who asks for an unknown user gets 404, and 422 for what cannot be an id."""
    unknown = client.get(path, params={"user": "0" * 36}, headers=root)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "user_not_found")
    for malformed in ("ana", "\0", "0" * 37):
        assert client.get(path, params={"user": malformed}, headers=root).status_code == 422


def test_predictions_are_charged_after_an_outage(client: TestClient, bearer: Bearer, settings: Settings) -> None:
    """While the usage table is unavailable predictions continue; each is charged once the table is back."""
    assert predict(client, bearer, png()).status_code == 200
    execute(settings, "ALTER TABLE usage RENAME TO away")
    assert [predict(client, bearer, png()).status_code for _ in range(3)] == [200] * 3
    execute(settings, "ALTER TABLE away RENAME TO usage")
    wait_until_used(client, bearer, 4)


def test_usage_needs_credentials(client: TestClient) -> None:
    """A request for usage without credentials gets 401."""
    assert client.get("/v1/usage").status_code == 401
