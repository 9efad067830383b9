"""Every route that takes a credential, or costs work in the database, has a rate limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import Settings
from auth.principal import Role
from auth.tokens.jws import generate_signing_key
from monitoring.chains.signing import new_private_key
from tests.support.gateway import PASSWORD, create_database

# These respond to anyone from memory, or share one result among concurrent requests.
UNLIMITED = {
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/docs/{name}"),
    ("GET", "/openapi.json"),
}
LOGIN = ("POST", "/auth/token")
# The first request that a test sends exhausts this limit.
ONCE = "1/day"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/gateway.db",
        allowed_hosts=("testserver",),
        auth={"signing_key": generate_signing_key("ES256")},
        model={"url": "stub://", "workers": 1},
        ledger={"signing_key": new_private_key(), "spool_folder": tmp_path / "spool"},
        limits={"predict": ONCE, "requests": ONCE},
    )

    create_database(settings.database_url.get_secret_value(), root=Role.ADMIN)
    return settings


def list_operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every operation, including those that are missing in the OpenAPI document."""
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and context.path is not None:
            yield from ((method, context.path) for method in sorted(context.methods or ()))


def test_no_authenticated_route_is_unlimited(settings: Settings) -> None:
    """Once a principal's rate is exhausted, every operation but the public ones gets 429 with the limit's headers."""
    app = create_app(settings, registry=CollectorRegistry())
    with TestClient(app) as client:
        form = {"grant_type": "password", "username": "root", "password": PASSWORD}
        token = client.post("/auth/token", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        client.get("/v1/me", headers=headers)
        client.post("/predict-land-use", headers=headers)
        client.post("/auth/introspect", headers=headers, data={"token": token})
        unlimited = set()
        for method, path in list_operations(app):
            response = client.request(method, path.replace("{", "").replace("}", ""), headers=headers)
            if response.status_code != 429:
                unlimited.add((method, path))
            else:
                assert int(response.headers["Retry-After"]) > 0
                assert response.headers["RateLimit-Policy"].endswith(";q=1;w=86400")
                assert ";r=0;" in response.headers["RateLimit"]
    assert unlimited == {*UNLIMITED, LOGIN}


def test_logins_have_a_limit_of_their_own(settings: Settings) -> None:
    """The token endpoint is limited for each address by LIMITS__TOKEN."""
    limited = settings.model_copy(update={"limits": settings.limits.model_copy(update={"token": ONCE})})
    with TestClient(create_app(limited, registry=CollectorRegistry())) as client:
        assert [client.post("/auth/token").status_code for _ in range(2)] == [400, 429]
