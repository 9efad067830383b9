"""`monitoring` redacts every kind of opaque credential that `auth` issues, and the value of every secret setting."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import auth
from api.settings.reading.names import list_names, list_secret_names
from auth.accounts.store import UserStore
from auth.api_keys.store import KeyStore, KeyTerms
from auth.clients import ClientStore
from auth.principal import Role, Scope
from auth.sessions import SessionStore
from monitoring.redaction import REDACTED, TOKEN_PREFIXES, redact, redact_tree
from storage.engine import open_engine
from storage.migrations import migrate
from tests.support.paths import ROOT

SCOPES = frozenset({Scope.PREDICT})


def find_prefixes() -> set[str]:
    """The string constants such as "atl_" in the source of auth, which are prefixes of credentials."""
    nodes = (node for path in (ROOT / "auth").rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"[a-z]{3,8}_", text)}


def test_every_prefix_has_a_rule() -> None:
    """The prefixes in the source of auth are exactly those that the redaction knows."""
    assert find_prefixes() == set(TOKEN_PREFIXES)


@pytest.mark.parametrize("name", [*list_secret_names(), "SECRETS__VAULT_CREDENTIAL"])
def test_secret_settings_are_redacted(name: str) -> None:
    """The value of a secret setting is redacted in a text, and in a field of a log line.

    Headers end with the line, because they have spaces in them.
    """
    rest = "\nnext" if name.endswith("_HEADERS") else " next"
    assert redact(f"{name}=hush{rest}") == f"{name}={REDACTED}{rest}"
    assert redact_tree({name: "hush"}) == {name: REDACTED}


def test_other_settings_are_readable() -> None:
    """The value of a setting that is not secret stays readable, even if the setting's name resembles a credential."""
    secret = {*list_secret_names(), "SECRETS__VAULT_CREDENTIAL"}
    texts = [f"{name}: /run/secrets cannot be read" for name in list_names() if name not in secret]
    assert len(texts) > 80
    assert [redact(text) for text in texts] == texts
    assert all(redact_tree({name: "x"}) == {name: "x"} for name in list_names() if name not in secret)


async def issue_credentials(engine: AsyncEngine) -> list[str]:
    """One new credential of every opaque kind."""
    user = await UserStore(engine).add("ana", Role.CLIENT, "hash")
    terms = KeyTerms("maps", SCOPES, datetime.now(UTC) + timedelta(days=1))
    _, key = await KeyStore(engine).create(user.id, terms)
    session = await SessionStore(engine, 3600).begin(user.id, user.credentials_version, SCOPES)
    _, secret = await ClientStore(engine).add("maps", SCOPES)
    return [key, session.refresh_token, secret]


@pytest.mark.parametrize(
    "around", ["{}", "token {} refused", "'{}',", "Bearer%20{}&x=1", "https://host.example/callback#{}", "a\\n{}"]
)
async def test_issued_credentials_are_redacted(tmp_path: Path, around: str) -> None:
    """Redaction removes each issued credential, and its first half, from a text, whatever surrounds it."""
    engine = open_engine(f"sqlite:///{tmp_path}/users.db")
    await migrate(engine, auth.MIGRATIONS)
    credentials = await issue_credentials(engine)
    await engine.dispose()
    for credential in credentials:
        for shown in (credential, credential[: len(credential) // 2]):
            cleaned = redact(around.format(shown))
            assert REDACTED in cleaned
            assert shown[4:] not in cleaned
