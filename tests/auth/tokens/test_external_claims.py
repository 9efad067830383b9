"""Reading the claims of external issuers' tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from auth.errors import InvalidToken, SubjectBarred
from auth.tokens.barred_subjects import subject_target
from tests.support.servers.identity_provider import NOW, MakeIssuers, token


async def assert_rejected(issuers: Any, credential: str) -> None:
    with pytest.raises(InvalidToken):
        await issuers.verify(credential)


@pytest.mark.parametrize(
    ("claims", "logged_in"),
    [
        ({"sub": "ada", "client_id": "site", "azp": "site"}, True),
        ({"sub": "ada"}, True),
        ({"sub": "service", "client_id": "service"}, False),
        ({"sub": "service", "cid": "service"}, False),
        ({"sub": "service@clients", "azp": "service"}, False),
    ],
)
async def test_a_services_own_token_is_no_login(
    provider: Any, make_issuers: MakeIssuers, claims: dict[str, Any], logged_in: bool
) -> None:
    """A token whose subject is the client itself was issued without a user, and does not count as a login."""
    assert (await make_issuers().verify(token(provider, **claims))).principal.logged_in is logged_in


async def test_fractional_times_are_accepted(provider: Any, make_issuers: MakeIssuers) -> None:
    """A NumericDate may have a fraction (RFC 7519, section 2), which is not rounded."""
    issuers = make_issuers(leeway_s=0)
    times: dict[str, Any] = {"iat": NOW - 0.25, "nbf": NOW - 0.5, "exp": NOW + 0.75}
    verified = await issuers.verify(token(provider, **times))
    assert verified.principal.expires_at == datetime.fromtimestamp(NOW + 0.75, UTC)
    assert verified.valid_until == NOW + 0.75
    wrong: list[dict[str, Any]] = [{"exp": NOW - 0.25}, {"iat": NOW + 0.25}, {"nbf": NOW + 0.25}]
    for late in wrong:
        await assert_rejected(issuers, token(provider, **late))


@pytest.mark.parametrize("claim", ["name", "sub", "jti", "scope", "groups", "client_id", "iss", "aud", "nested"])
@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udfff\ud800"], ids=["high", "low", "reversed"])
async def test_half_characters_are_rejected(provider: Any, make_issuers: MakeIssuers, claim: str, text: str) -> None:
    """A token with a lone surrogate in any claim is rejected: it can be neither stored, logged nor sent."""
    claims: dict[str, Any] = {claim: {"deep": [text]} if claim == "nested" else text}
    await assert_rejected(make_issuers(roles_claim="groups"), token(provider, **claims))


async def test_a_whole_character_of_two_escapes_is_accepted(provider: Any, make_issuers: MakeIssuers) -> None:
    """A character outside the Basic Multilingual Plane, which JSON escapes as two surrogates, is accepted."""
    assert (await make_issuers().verify(token(provider, name="Ada 🛰"))).principal.name == "Ada 🛰"


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[31m", "\u202eadA", "", "x" * 201, 7, None, ["Ada"], ...])
async def test_an_unusable_name_is_replaced_by_the_subject(provider: Any, make_issuers: MakeIssuers, name: Any) -> None:
    """A name with control characters, of another type or too long is not used, and neither is such a token id."""
    principal = (await make_issuers().verify(token(provider, name=name, jti=name))).principal
    assert (principal.name, principal.token_id or None) == ("ada", None)


@pytest.mark.parametrize(
    ("claims", "accepted"),
    [
        ({"client_id": "atalaya", "aud": ..., "token_use": "access"}, True),
        ({"client_id": ["atalaya"], "aud": "other"}, True),
        ({"client_id": "other", "aud": "atalaya"}, False),
        ({"client_id": ..., "aud": "atalaya"}, False),
        ({"client_id": "atalaya", "token_use": "id"}, False),
    ],
    ids=str,
)
async def test_another_claim_can_hold_the_audience(
    provider: Any, make_issuers: MakeIssuers, claims: dict[str, Any], accepted: bool
) -> None:
    """The audience is read from the configured claim only, as Cognito's tokens require; its ID tokens are rejected."""
    issuers = make_issuers(audience_claim="client_id")
    if accepted:
        assert await issuers.verify(token(provider, **claims))
    else:
        await assert_rejected(issuers, token(provider, **claims))


async def test_a_final_slash_of_the_issuer_is_named(provider: Any, make_issuers: MakeIssuers) -> None:
    """A token whose issuer differs from the configured one by a final slash is rejected with an error that says so."""
    credential = token(provider, iss=f"{provider.issuer}/")
    issuers = make_issuers()
    assert issuers.accepts(credential)
    with pytest.raises(InvalidToken, match="final slash"):
        await issuers.verify(credential)


async def test_a_barred_subject_is_rejected(provider: Any, make_issuers: MakeIssuers) -> None:
    """A barred user's token is rejected with an error that names the subject; other users' tokens are accepted."""
    issuers = make_issuers(revoked={subject_target(provider.issuer, "ada")})
    with pytest.raises(SubjectBarred) as barred:
        await issuers.verify(token(provider))
    assert barred.value.subject == f"{provider.issuer}|ada"
    verified = await issuers.verify(token(provider, sub="grace"))
    assert verified.targets == {subject_target(provider.issuer, "grace")}
    await assert_rejected(issuers, f"{token(provider).rpartition('.')[0]}.")
