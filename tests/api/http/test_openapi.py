"""What the OpenAPI document promises, where it once was wrong."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

OTHER_FORMS = ("/auth/token", "/auth/revoke", "/auth/introspect", "/readyz")


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


def test_every_refusal_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    """Outside the OAuth endpoints and the readiness, whatever is refused is documented in one form."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            assert {"400", "421", "431"} <= set(refusals), (method, path)
            if path not in OTHER_FORMS:
                kinds = {kind for answer in refusals.values() for kind in answer["content"]}
                assert kinds == {"application/problem+json"}, (method, path)


def test_no_parameter_can_be_null(document: dict[str, Any]) -> None:
    """An address and a header have no null: what is optional is left out."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), parameter["name"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/keys", "GET, POST"), ("/v1/keys/x", "GET, DELETE"), ("/v1/users/x", "GET, PATCH"), ("/v1/me", "GET")],
)
def test_allow_names_every_method_of_the_path(client: TestClient, path: str, allowed: str) -> None:
    """A 405 lists all that the path can be asked with, not that of one route."""
    answer = client.request("TRACE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("wrong", [True, "5", 1.5, -1])
@pytest.mark.parametrize("field", ["monthly_megapixels", "monthly_requests", "expires_days"])
def test_a_number_is_a_number(client: TestClient, bearer: dict[str, str], field: str, wrong: object) -> None:
    """JSON's true and "5" are no numbers of a key's terms."""
    answer = client.post("/v1/keys", headers=bearer, json={"name": "a", field: wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_moment_is_no_number(client: TestClient, log_in: Any, field: str) -> None:
    """A number is not taken for seconds since 1970 where a date and a time are documented."""
    answer = client.get("/v1/audit", headers=log_in(client, "olga"), params={field: "0.5"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_form_in_a_charset_that_fails_is_refused(client: TestClient, bearer: dict[str, str]) -> None:
    """A form may name any of Python's codecs; one that is no character set, or takes minutes, is a 400."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    for charset in ("undefined", "punycode", "idna"):
        headers = {**bearer, "Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
        answer = client.post("/v1/predictions", headers=headers, content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_form")
