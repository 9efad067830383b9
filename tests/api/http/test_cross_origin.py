"""Cross-origin requests: what web pages of other sites may send and read."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.routes.v2.wire import LENGTH_HEADER
from api.settings import Settings
from tests.api.conftest import MakeClient

APP = "https://app.example.org"
METHODS = ("get", "post", "put", "patch", "delete")
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client(cors_origins=(APP,))


def test_off_by_default(make_client: MakeClient) -> None:
    """Without CORS_ORIGINS no response has CORS headers, and a preflight request is handled like any OPTIONS."""
    client = make_client()
    response = client.options("/v1/predictions", headers=PREFLIGHT)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    for headers in (response.headers, client.get("/livez", headers={"Origin": APP}).headers):
        assert not [name for name in headers if name.startswith("access-control-")]


def test_preflight_needs_no_credentials(client: TestClient) -> None:
    """A preflight request is answered before authentication, with the methods and headers that the page may send."""
    response = client.options("/v1/predictions", headers=PREFLIGHT)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == APP
    assert "POST" in response.headers["access-control-allow-methods"].split(", ")
    assert "X-API-Key" in response.headers["access-control-allow-headers"].split(", ")
    assert response.headers["vary"] == "Origin"
    assert response.headers["x-request-id"]


def test_preflight_allows_the_methods_of_all_routes(client: TestClient) -> None:
    """A page may send every method that a route has."""
    operations = client.get("/openapi.json").json()["paths"].values()
    methods = {method.upper() for path in operations for method in path if method in METHODS}
    allowed = client.options("/v1/me", headers=PREFLIGHT).headers["access-control-allow-methods"]
    assert set(allowed.split(", ")) == methods | {"HEAD"}


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.org.evil.example", "null"])
def test_other_origins_are_not_allowed(client: TestClient, origin: str) -> None:
    """An origin that is not in the list gets neither a preflight permission nor a readable response."""
    for response in (
        client.options("/v1/predictions", headers={**PREFLIGHT, "Origin": origin}),
        client.get("/livez", headers={"Origin": origin}),
    ):
        assert "access-control-allow-origin" not in response.headers
        assert "access-control-allow-methods" not in response.headers
        assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/v1/me", 401), ("/nowhere", 404)])
def test_responses_are_readable(client: TestClient, path: str, status: int) -> None:
    """An allowed page can read every response, including errors, and the headers Link and Retry-After."""
    response = client.get(path, headers={"Origin": APP})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == APP
    assert {"Link", "Retry-After"} <= set(response.headers["access-control-expose-headers"].split(", "))
    assert "Origin" in response.headers["vary"].split(", ")


def test_all_headers_of_predictions_are_readable(client: TestClient) -> None:
    """A page can read the headers that describe a picture or the binary tensors of a response, and send their kin."""
    exposed = client.get("/livez", headers={"Origin": APP}).headers["access-control-expose-headers"].split(", ")
    described = {"ID", "Label", "Confidence", "Abstained", "Reason"}
    assert {f"X-Prediction-{name}" for name in described} | {"X-Explained-Label", LENGTH_HEADER} <= set(exposed)
    allowed = client.options("/v1/me", headers=PREFLIGHT).headers["access-control-allow-headers"]
    assert LENGTH_HEADER in allowed.split(", ")


def test_unexpected_errors_are_readable(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page can read the request id of a response to an unexpected error."""
    client = make_client(cors_origins=(APP,), raise_errors=False)

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("api.routes.pages.home._render", fail)
    response = client.get("/", headers={"Origin": APP, "Accept": "text/html"})
    assert response.status_code == 500
    assert response.headers["access-control-allow-origin"] == APP


def test_every_origin(make_client: MakeClient) -> None:
    """With * every page may read responses, but credentials that browsers add themselves are never allowed."""
    client = make_client(cors_origins=("*",))
    for response in (client.options("/v1/me", headers=PREFLIGHT), client.get("/livez", headers={"Origin": APP})):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


def test_origins_are_compared_as_browsers_send_them() -> None:
    """CORS_ORIGINS is normalised to what browsers send: lower case, without a default port."""
    settings = Settings(cors_origins="HTTPS://App.Example.org:443, http://[::1]:8080")
    assert settings.cors_origins == (APP, "http://[::1]:8080")
