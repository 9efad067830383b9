"""Access tokens of people and services from a real OpenID provider."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from jose import jwk

from auth.errors import ExpiredToken, InvalidToken
from auth.principal import Role, Scope
from auth.tokens.external_issuers import ExternalIssuers
from auth.tokens.issuer_rules import ExternalIssuer
from auth.tokens.jws import read_unverified_claims
from tests.e2e.oidc.provider import OpenIDProvider
from tests.support.gateway import TIMEOUT_S, Gateway
from tests.support.paths import FOREST

Trust = Callable[..., ExternalIssuers]

RULES: dict[str, Any] = {
    "audience": "urn:atalaya",
    "scopes": {"land:read": "predict", "land:admin": "models:read"},
    "roles_claim": "groups",
    "roles": {"operators": "operator"},
    "default_role": "client",
}


@dataclass
class Clock:
    """A clock that is `ahead` seconds ahead of the machine's, or shows `fixed`, and a monotonic one that stands still.

    So it does not depend on the machine's speed how often keys are fetched.
    """

    ahead: float = 0
    fixed: float | None = None

    def __call__(self) -> float:
        return time.time() + self.ahead if self.fixed is None else self.fixed

    def monotonic(self) -> float:
        return self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def trust(openid: OpenIDProvider, clock: Clock) -> AsyncIterator[Trust]:
    """Make issuers that trust the provider, with changed rules."""
    opened = []
    async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:

        def make(**changes: Any) -> ExternalIssuers:
            rules = {"issuer": openid.issuer, "audience": "urn:atalaya", "scopes": {"land:read": Scope.PREDICT}}
            issuer = ExternalIssuer(**{**rules, **changes})
            opened.append(ExternalIssuers([issuer], client, lambda _: False, clock, clock.monotonic))
            return opened[-1]

        yield make
        for issuers in opened:
            await issuers.close()


async def assert_rejected(issuers: ExternalIssuers, token: str, error: type[Exception] = InvalidToken) -> None:
    with pytest.raises(error):
        await issuers.verify(token)


def test_people_and_services_of_a_provider_use_the_gateway(
    openid: OpenIDProvider, new_gateway: Callable[..., Gateway]
) -> None:
    """A service's scope lets it predict, a person's group gives a role; ID tokens and opaque tokens are rejected."""
    before = openid.fetches()
    gateway = new_gateway(AUTH__ISSUERS=json.dumps([{"issuer": openid.issuer, **RULES}]))
    with httpx.Client(base_url=gateway.base_url, timeout=TIMEOUT_S) as client:

        def call(token: str, path: str = "/v1/me", **more: Any) -> httpx.Response:
            return client.request("POST" if more else "GET", path, headers={"Authorization": f"Bearer {token}"}, **more)

        image = {"file": FOREST.read_bytes()}
        service = openid.service_token()
        assert call(service).json()["subject"] == f"{openid.issuer}|service"
        assert call(service).json()["scopes"] == ["predict"]
        assert call(service, "/v1/predictions", files=image).status_code == 200
        assert call(openid.service_token("urn:atalaya?alg=ES256")).status_code == 200

        person = openid.log_in("ada")
        me = call(person["access_token"]).json()
        assert (me["subject"], me["role"], me["scopes"]) == (f"{openid.issuer}|ada", "operator", ["models:read"])
        rejected = call(person["access_token"], "/v1/predictions", files=image)
        assert (rejected.status_code, rejected.json()["code"]) == (403, "insufficient_scope")

        for token in (person["id_token"], openid.service_token(None), openid.service_token("urn:other")):
            rejected = call(token)
            assert (rejected.status_code, rejected.json()["code"]) == (401, "invalid_token")
        assert call(gateway.token()).json()["name"] == "ana"
    assert openid.fetches() == before + 1


async def test_an_id_token_is_no_access_token(openid: OpenIDProvider, trust: Trust) -> None:
    """ID tokens are rejected even when the configured audience is, by mistake, the client's id."""
    tokens = openid.log_in("ada")
    await assert_rejected(trust(audience="site"), tokens["id_token"])
    assert (await trust().verify(tokens["access_token"])).principal.subject == f"{openid.issuer}|ada"


async def test_another_audience_algorithm_or_issuer_is_rejected(openid: OpenIDProvider, trust: Trust) -> None:
    """A token for another audience, with another algorithm or from another issuer is rejected."""
    token = openid.service_token()
    await assert_rejected(trust(audience="urn:other"), token)
    await assert_rejected(trust(algorithms=("ES256",)), token)
    await assert_rejected(trust(issuer="http://127.0.0.1:1"), token)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "PS256", "EdDSA"])
async def test_the_providers_algorithms_are_accepted(openid: OpenIDProvider, trust: Trust, algorithm: str) -> None:
    """A token that is signed with a configured algorithm is accepted; with another algorithm it is rejected."""
    token = openid.service_token(f"urn:atalaya?alg={algorithm}")
    assert (await trust(algorithms=(algorithm,)).verify(token)).principal.scopes == {Scope.PREDICT}
    await assert_rejected(trust(algorithms=("ES384",)), token)


async def test_a_token_expires(openid: OpenIDProvider, trust: Trust, clock: Clock) -> None:
    """The provider's tokens are accepted for ten minutes plus the leeway, and rejected afterwards."""
    issuers, token = trust(), openid.service_token()
    claims = read_unverified_claims(token)
    assert claims["exp"] - claims["iat"] == 600
    clock.fixed = claims["exp"]
    await issuers.verify(token)
    clock.fixed = claims["exp"] + 31
    await assert_rejected(issuers, token, ExpiredToken)


async def test_the_published_key_is_no_secret(openid: OpenIDProvider, trust: Trust) -> None:
    """A token that is signed with HMAC, with the provider's public key as the secret, is rejected."""
    header, claims, _ = openid.service_token().split(".")
    published = openid.published_key()
    forged = json.loads(base64.urlsafe_b64decode(header + "==")) | {"alg": "HS256"}
    message = f"{base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b'=').decode()}.{claims}"
    for secret in (jwk.construct(published).to_pem(), json.dumps(published).encode()):
        digest = hmac.digest(secret, message.encode(), "sha256")
        await assert_rejected(trust(), f"{message}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}")


async def test_an_outage_and_a_key_rotation(openid: OpenIDProvider, trust: Trust, clock: Clock) -> None:
    """Tokens stay valid while the provider is unavailable; when it returns with new keys, only those are accepted."""
    issuers, token = trust(), openid.service_token()
    await issuers.verify(token)
    openid.stop()
    clock.ahead = 40
    await issuers.verify(token)
    openid.start()
    renewed = openid.service_token()
    assert (await issuers.verify(renewed)).principal.role is None
    await assert_rejected(issuers, token)
    assert openid.fetches() == 1


async def test_unknown_key_ids_make_one_fetch(openid: OpenIDProvider, trust: Trust, clock: Clock) -> None:
    """Unknown key ids cause at most one fetch of the keys in thirty seconds."""
    issuers, before = trust(), openid.fetches()
    _, claims, signature = openid.service_token().split(".")
    for begin in (0, 31):
        clock.ahead = begin
        for number in range(200):
            header = json.dumps({"alg": "RS256", "kid": f"k{number}", "typ": "at+jwt"}).encode()
            forged = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
            await assert_rejected(issuers, f"{forged}.{claims}.{signature}")
    assert openid.fetches() == before + 2


async def test_a_persons_groups_determine_the_role(openid: OpenIDProvider, trust: Trust) -> None:
    """A person gets the role of a group; a service has no groups and gets no role."""
    issuers = trust(scopes={}, roles_claim="groups", roles={"operators": Role.OPERATOR})
    person = (await issuers.verify(openid.log_in("ada")["access_token"])).principal
    service = (await issuers.verify(openid.service_token())).principal
    assert (person.role, service.role, service.scopes) == (Role.OPERATOR, None, frozenset())
