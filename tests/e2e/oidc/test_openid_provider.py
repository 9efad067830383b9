"""People and services of a real OpenID provider at the gateway, also when that provider is away."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from jose import jwk

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import Role, Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer

SAMPLE = Path(__file__).parents[3] / "samples" / "yellowstone_forest.jpg"
RULES: dict[str, Any] = {
    "audience": "urn:atalaya",
    "scopes": {"land:read": "predict", "land:admin": "models:read"},
    "roles_claim": "groups",
    "roles": {"operators": "operator"},
    "default_role": "client",
}


@dataclass
class Clock:
    """Runs ahead of the machine's by `ahead` seconds."""

    ahead: float = 0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def trust(openid: Any, clock: Clock) -> AsyncIterator[Callable[..., ExternalIssuers]]:
    """Believe the provider, with changed rules."""
    opened = []
    async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:

        def make(**changes: Any) -> ExternalIssuers:
            rules = {"issuer": openid.issuer, "audience": "urn:atalaya", "scopes": {"land:read": Scope.PREDICT}}
            opened.append(ExternalIssuers([ExternalIssuer(**{**rules, **changes})], client, clock, clock))
            return opened[-1]

        yield make
        for issuers in opened:
            await issuers.close()


async def assert_refused(issuers: ExternalIssuers, token: str, error: type[Exception] = InvalidToken) -> None:
    with pytest.raises(error):
        await issuers.verify(token)


def test_people_and_services_of_a_provider_use_the_gateway(openid: Any, new_gateway: Callable[..., Any]) -> None:
    """A service predicts with its scope, a person does what the group may; ID tokens and opaque tokens are refused."""
    before = openid.fetches()
    gateway = new_gateway(AUTH__ISSUERS=json.dumps([{"issuer": openid.issuer, **RULES}]))
    with httpx.Client(base_url=gateway.base_url, timeout=30) as client:

        def call(token: str, path: str = "/v1/me", **more: Any) -> httpx.Response:
            return client.request("POST" if more else "GET", path, headers={"Authorization": f"Bearer {token}"}, **more)

        image = {"file": SAMPLE.read_bytes()}
        service = openid.service_token()
        assert call(service).json()["subject"] == f"{openid.issuer}|service"
        assert call(service).json()["scopes"] == ["predict"]
        assert call(service, "/v1/predictions", files=image).status_code == 200
        assert call(openid.service_token("urn:atalaya?alg=ES256")).status_code == 200

        person = openid.log_in("ada")
        me = call(person["access_token"]).json()
        assert (me["subject"], me["role"], me["scopes"]) == (f"{openid.issuer}|ada", "operator", ["models:read"])
        refused = call(person["access_token"], "/v1/predictions", files=image)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")

        for token in (person["id_token"], openid.service_token(None), openid.service_token("urn:other")):
            refused = call(token)
            assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
        assert call(gateway.token()).json()["name"] == "ana"
    assert openid.fetches() == before + 1


async def test_an_id_token_is_no_access_token(openid: Any, trust: Callable[..., ExternalIssuers]) -> None:
    """Even where the audience is the client's id by mistake, its ID tokens are refused."""
    tokens = openid.log_in("ada")
    await assert_refused(trust(audience="site"), tokens["id_token"])
    assert (await trust().verify(tokens["access_token"])).principal.subject == f"{openid.issuer}|ada"


async def test_another_audience_algorithm_or_issuer_is_refused(
    openid: Any, trust: Callable[..., ExternalIssuers]
) -> None:
    """What is right for another gateway is wrong for this one."""
    token = openid.service_token()
    await assert_refused(trust(audience="urn:other"), token)
    await assert_refused(trust(algorithms=("ES256",)), token)
    await assert_refused(trust(issuer="http://127.0.0.1:1"), token)


async def test_a_token_expires(openid: Any, trust: Callable[..., ExternalIssuers], clock: Clock) -> None:
    """The provider's tokens live for ten minutes, and the leeway longer."""
    issuers, token = trust(), openid.service_token()
    clock.ahead = 600
    await issuers.verify(token)
    clock.ahead = 631
    await assert_refused(issuers, token, ExpiredToken)


async def test_the_published_key_is_no_secret(openid: Any, trust: Callable[..., ExternalIssuers]) -> None:
    """A token signed with HMAC under a key of the provider's published set is refused."""
    header, claims, _ = openid.service_token().split(".")
    published = openid.published_key()
    forged = json.loads(base64.urlsafe_b64decode(header + "==")) | {"alg": "HS256"}
    message = f"{base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b'=').decode()}.{claims}"
    for secret in (jwk.construct(published).to_pem(), json.dumps(published).encode()):
        digest = hmac.digest(secret, message.encode(), "sha256")
        await assert_refused(trust(), f"{message}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}")


async def test_an_outage_and_new_keys(openid: Any, trust: Callable[..., ExternalIssuers], clock: Clock) -> None:
    """Tokens go on counting while the provider is away; when it returns with other keys, those alone count."""
    issuers, token = trust(), openid.service_token()
    await issuers.verify(token)
    openid.stop()
    clock.ahead = 40
    await issuers.verify(token)
    openid.start()
    renewed = openid.service_token()
    assert (await issuers.verify(renewed)).principal.role is None
    await assert_refused(issuers, token)
    assert openid.fetches() == 1


async def test_unknown_key_ids_make_one_fetch(openid: Any, trust: Callable[..., ExternalIssuers], clock: Clock) -> None:
    """A flood of unknown key ids reaches the provider once in thirty seconds."""
    issuers, before = trust(), openid.fetches()
    _, claims, signature = openid.service_token().split(".")
    for begin in (0, 31):
        clock.ahead = begin
        for number in range(200):
            header = json.dumps({"alg": "RS256", "kid": f"k{number}", "typ": "at+jwt"}).encode()
            forged = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
            await assert_refused(issuers, f"{forged}.{claims}.{signature}")
    assert openid.fetches() == before + 2


async def test_roles_come_from_the_groups_of_a_person(openid: Any, trust: Callable[..., ExternalIssuers]) -> None:
    """A service has no groups and so no role."""
    issuers = trust(scopes={}, roles_claim="groups", roles={"operators": Role.OPERATOR})
    person = (await issuers.verify(openid.log_in("ada")["access_token"])).principal
    service = (await issuers.verify(openid.service_token())).principal
    assert (person.role, service.role, service.scopes) == (Role.OPERATOR, None, frozenset())
