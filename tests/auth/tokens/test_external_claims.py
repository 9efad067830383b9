"""Reading the claims of external issuers' tokens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.identity_provider import MakeIssuers, token


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
    """A token whose subject is the client itself was issued without a user, so it may change no credentials."""
    assert (await make_issuers().verify(token(provider, **claims))).principal.logged_in is logged_in
