"""The OpenAPI document, and the gateway's conformance to it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.http.openapi.texts import SUMMARIES
from auth.principal import Scope
from tests.api.conftest import Bearers

OTHER_SCHEMAS = ("/auth/token", "/auth/revoke", "/auth/introspect", "/readyz", "/v2/health/ready")


@pytest.fixture(scope="module")
def document(shared_client: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = shared_client.get("/openapi.json").json()
    return document


def test_errors_are_documented_as_problems(document: dict[str, Any]) -> None:
    """Except for OAuth and readiness, every error response is documented as a problem document."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            errors = {status: response for status, response in operation["responses"].items() if status >= "400"}
            assert {"400", "421", "431"} <= set(errors), (method, path)
            if path not in OTHER_SCHEMAS:
                kinds = {kind for response in errors.values() for kind in response["content"]}
                assert kinds == {"application/problem+json"}, (method, path)


def test_parameters_are_not_nullable(document: dict[str, Any]) -> None:
    """Parameters are documented without null: a client omits an optional one."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), parameter["name"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/keys", "GET, HEAD, POST"),
        ("/v1/keys/x", "GET, HEAD, DELETE"),
        ("/v1/users/x", "GET, HEAD, PATCH, DELETE"),
        ("/v1/me", "GET, HEAD"),
        ("/auth/token", "POST"),
    ],
)
def test_allow_lists_every_method_of_the_path(shared_client: TestClient, path: str, allowed: str) -> None:
    """A 405 response lists the methods of all routes of the path, not those of one."""
    response = shared_client.request("TRACE", path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("wrong", [True, "5", 1.5, -1])
@pytest.mark.parametrize("field", ["monthly_megapixels", "monthly_requests", "expires_days"])
def test_integers_are_integers(shared_client: TestClient, shared_bearers: Bearers, field: str, wrong: object) -> None:
    """Where an integer is documented, true, "5", fractions and negative numbers are rejected."""
    response = shared_client.post("/v1/keys", headers=shared_bearers["ana"], json={"name": "a", field: wrong})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("field", ["since", "until"])
def test_times_are_not_numbers(shared_client: TestClient, shared_bearers: Bearers, field: str) -> None:
    """Where a date and time are documented, a number is rejected instead of read as seconds since 1970."""
    response = shared_client.get("/v1/audit", headers=shared_bearers["olga"], params={field: "0.5"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_form_with_unusable_charset_is_rejected(shared_client: TestClient, shared_bearers: Bearers) -> None:
    """A form whose charset names a slow or failing Python codec is rejected with 400."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    for charset in ("undefined", "punycode", "idna"):
        headers = {**shared_bearers["ana"], "Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
        response = shared_client.post("/v1/predictions", headers=headers, content=body)
        assert (response.status_code, response.json()["code"]) == (400, "bad_form")


def test_groups_and_scopes_are_described(document: dict[str, Any]) -> None:
    """Every group of routes, every operation and every scope has a description, and every summary is used."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    assert sorted(operation["summary"] for operation in operations) == sorted(SUMMARIES.values())
    scopes = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]["scopes"]
    assert set(scopes) == set(Scope)
    assert all(scopes.values())


def test_every_group_has_an_example_of_an_error(document: dict[str, Any]) -> None:
    """Each group of routes shows the body of one error, with the code of that error."""
    codes = dict[str, set[str]]()
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    if example := content.get("example"):
                        code = example.get("code") or example.get("error") or example["status"]
                        codes.setdefault(operation["tags"][0], set()).add(code)
    assert codes == {
        "predictions": {"unsupported_image"},
        "inference": {"model_not_served"},
        "account": {"missing_credentials"},
        "keys": {"key_not_found"},
        "auth": {"invalid_grant"},
        "users": {"user_exists"},
        "models": {"model_not_recorded"},
        "monitoring": {"insufficient_scope"},
        "health": {"not ready"},
    }
