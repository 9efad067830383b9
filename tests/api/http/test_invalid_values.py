"""Problem documents about invalid values name the value and what is allowed, without pydantic's own words."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import Bearers

USER = "/v1/users/00000000-0000-4000-8000-000000000000"
KEYS = "/v1/keys"


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("PATCH", USER, "{}", "body: name at least one field."),
        ("PATCH", USER, "[]", "body: must be a JSON object."),
        ("PATCH", USER, '{"disabled": "yes"}', "body.disabled: must be true or false."),
        ("PATCH", USER, '{"keep_images": 1}', "body.keep_images: must be true or false."),
        ("PATCH", USER, '{"role": null}', "body: only a quota can be null."),
        ("PATCH", USER, '{"role": "king"}', "body.role: must be 'admin', 'operator', 'auditor' or 'client'."),
        ("PATCH", USER, '{"a": 1', "body: is not valid JSON."),
        ("POST", KEYS, "{}", "body.name: is required."),
        ("POST", KEYS, '{"name": 1}', "body.name: must be a string."),
        ("POST", KEYS, '{"name": ""}', "body.name: must have at least 1 character."),
        ("POST", KEYS, r'{"name": "\ud800"}', "body.name: must be valid Unicode text."),
        ("POST", KEYS, '{"name": "a", "scopes": []}', "body.scopes: must have at least 1 item, not 0."),
        ("POST", KEYS, '{"name": "a", "scopes": "predict"}', "body.scopes: must be a JSON list."),
        ("POST", KEYS, '{"name": "a", "user": "b"}', "body.user: is unknown here."),
        ("POST", KEYS, '{"name": "a", "expires_days": 0}', "body.expires_days: must be greater than or equal to 1."),
        (
            "POST",
            KEYS,
            '{"name": "a", "rate": "often"}',
            "body.rate: must be N/second, N/minute, N/hour or N/day, such as 60/minute.",
        ),
        ("GET", "/v1/keys?limit=x", "", "query.limit: must be a whole number."),
        ("GET", "/v1/usage?user=zzz", "", "query.user: must be the id of a user."),
        ("GET", "/v1/audit?since=today", "", "query.since: must be a date and a time, as in 2026-11-23T12:00:00Z."),
        ("GET", "/v1/audit?cursor=x", "", "query.cursor: must be one that the previous page gave."),
    ],
)
def test_problems_are_described_in_plain_words(
    shared_client: TestClient, shared_bearers: Bearers, method: str, path: str, body: str, detail: str
) -> None:
    """The detail is one sentence, and `errors` has one item with its parts for each invalid value."""
    headers = {**shared_bearers["root"], "Content-Type": "application/json"}
    problem: dict[str, Any] = shared_client.request(method, path, content=body, headers=headers).json()
    assert (problem["code"], problem["detail"]) == ("invalid_request", detail)
    assert [f"{item['field']}: {item['problem']}." for item in problem["errors"]] == [detail]
