"""Threat T30: what a gateway reveals in production, and which secrets prevent it from starting."""

from __future__ import annotations

import base64
from collections.abc import Callable

import httpx
import pytest

from tests.security.output.problems import check_problem
from tests.support.gateway import TIMEOUT_S, Gateway

ISSUER = "https://localhost"


def assert_no_cors(response: httpx.Response) -> None:
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_production_shows_no_documentation(new_gateway: Callable[..., Gateway]) -> None:
    """T30: in production the API documentation and CORS are off, and browsers are told to use HTTPS."""
    gateway = new_gateway(ENVIRONMENT="production", AUTH__ISSUER=ISSUER)
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert gateway.get(path).status_code == 404
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    response = httpx.options(f"{gateway.base_url}/v1/me", headers=preflight, timeout=TIMEOUT_S)
    assert_no_cors(response)
    assert "max-age" in response.headers["strict-transport-security"]


def test_production_shows_documentation_that_is_switched_on(new_gateway: Callable[..., Gateway]) -> None:
    """T30: DOCS=true shows the documentation in production, with its own security policy, and changes no error."""
    gateway = new_gateway(ENVIRONMENT="production", AUTH__ISSUER=ISSUER, DOCS="true", MODEL__URL="stub://")
    assert gateway.get("/openapi.json").json()["info"]["title"] == "Atalaya"
    assert "frame-ancestors 'none'" in gateway.get("/docs").headers["content-security-policy"]
    response = gateway.get("/v1/me", headers={"Origin": "https://evil.example"})
    check_problem(response, 401, "missing_credentials")
    assert_no_cors(response)


@pytest.mark.parametrize("password", ["sesame", "atalaya", "passwordpassword"])
def test_production_rejects_a_weak_database_password(gateway: Gateway, password: str) -> None:
    """T30: production does not start with a common database password, and says so in one line without it."""
    url = f"postgresql://atalaya:{password}@127.0.0.1:1/atalaya"
    serve = gateway.with_settings(ENVIRONMENT="production", AUTH__ISSUER=ISSUER, DATABASE_URL=url).run("serve")
    assert (serve.returncode, serve.stderr.count("\n")) == (1, 1), serve.stderr
    # The database is unreachable as well, but the password is reported first.
    assert serve.stderr.startswith("error: DATABASE_URL has a password that is too weak")
    assert f":{password}@" not in serve.stderr


def test_production_rejects_keys_and_passwords_that_are_not_random(gateway: Gateway) -> None:
    """T30: production does not start with keys of zero bytes or a common password of Redis, and names each setting."""
    zeros = base64.b64encode(bytes(32)).decode()
    changes = {"LEDGER__SIGNING_KEY": zeros, "AUTH__DATA_KEY": zeros, "IMAGES__KEY": f"{zeros},{zeros}"}
    production = gateway.with_settings(
        ENVIRONMENT="production", AUTH__ISSUER=ISSUER, REDIS_URL="redis://:redis@127.0.0.1:1", **changes
    )
    serve = production.run("serve")
    assert serve.returncode == 1
    named = [line.removeprefix("error: ").split()[0] for line in serve.stderr.splitlines()]
    assert named == [*changes, "REDIS_URL"]
    assert zeros not in serve.stderr


@pytest.mark.parametrize("key", ["a" * 64, "0123456789abcdef" * 4])
def test_a_secret_that_repeats_is_rejected(gateway: Gateway, key: str) -> None:
    """T30: the gateway does not start with a secret that repeats one character, or one part."""
    serve = gateway.with_settings(AUTH__SIGNING_ALGORITHM="HS256", AUTH__SIGNING_KEY=key).run("serve")
    assert (serve.returncode, serve.stderr.count("\n")) == (1, 1), serve.stderr
    assert "AUTH__SIGNING_KEY" in serve.stderr


@pytest.mark.parametrize("key", ["", "changeme", "-----BEGIN PRIVATE KEY-----"])
def test_production_rejects_a_missing_or_weak_signing_key(gateway: Gateway, key: str) -> None:
    """T30: production does not start without a strong signing key, and reports the setting without its value."""
    serve = gateway.with_settings(ENVIRONMENT="production", AUTH__ISSUER=ISSUER, AUTH__SIGNING_KEY=key).run("serve")
    assert serve.returncode == 1
    assert "AUTH__SIGNING_KEY" in serve.stderr
    assert not key or key not in serve.stderr
    assert len(serve.stderr.strip().splitlines()) == 1


def test_production_requires_the_public_address(gateway: Gateway) -> None:
    """T30: production does not start while the tokens' issuer depends on the port; Railway's domain supplies one."""
    production = gateway.with_settings(ENVIRONMENT="production", LEDGER__SIGNING_KEY="")
    serve = production.run("serve")
    assert [line.split()[1] for line in serve.stderr.splitlines()] == ["LEDGER__SIGNING_KEY", "AUTH__ISSUER"]
    serve = production.with_settings(RAILWAY_PUBLIC_DOMAIN="land.up.railway.app").run("serve")
    assert [line.split()[1] for line in serve.stderr.splitlines()] == ["LEDGER__SIGNING_KEY"]
