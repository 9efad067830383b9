"""Scopes, roles, principals and error codes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from auth.errors import AuthError, InsufficientScope, KeyBound, LoginRequired, UnknownScope
from auth.principal import ROLE_SCOPES, Principal, Role, Scope, select_scopes


def test_only_the_admin_role_grants_every_scope() -> None:
    """Each role grants at least one scope, and only the admin role grants all."""
    assert set(ROLE_SCOPES) == set(Role)
    assert all(ROLE_SCOPES.values())
    assert [role for role in Role if ROLE_SCOPES[role] == set(Scope)] == [Role.ADMIN]


def test_the_client_role_grants_no_administration() -> None:
    """The client role allows predictions, reading one's predictions and managing one's keys, and nothing else."""
    assert ROLE_SCOPES[Role.CLIENT] == {Scope.PREDICT, Scope.PREDICTIONS_READ, Scope.KEYS_WRITE}


def test_a_missing_scope_is_named() -> None:
    """The error for a missing scope names it."""
    principal = Principal("id", "ada", Role.CLIENT, frozenset({Scope.PREDICT}), datetime.now(UTC))
    principal.require(Scope.PREDICT)
    with pytest.raises(InsufficientScope, match="users:admin") as rejected:
        principal.require(Scope.USERS_ADMIN)
    assert rejected.value.scope == "users:admin"


def test_only_a_login_changes_credentials() -> None:
    """A caller who logged in may change credentials; API keys and other callers are rejected with different errors."""
    caller = Principal("id", "ada", Role.ADMIN, frozenset(Scope), datetime.now(UTC))
    replace(caller, logged_in=True).require_login()
    with pytest.raises(LoginRequired):
        caller.require_login()
    with pytest.raises(KeyBound):
        replace(caller, key_id="k1").require_login()


def test_an_empty_request_grants_all_scopes_of_the_role() -> None:
    """An empty request means all scopes that the role grants; any other means exactly the scopes it names."""
    assert select_scopes(ROLE_SCOPES[Role.AUDITOR], " ") == ROLE_SCOPES[Role.AUDITOR]
    assert select_scopes(ROLE_SCOPES[Role.ADMIN], "predict audit:read predict") == {Scope.PREDICT, Scope.AUDIT_READ}


@pytest.mark.parametrize(
    "requested", ["users:admin", "predict users:admin", "PREDICT", "everything", "predict,keys:write"]
)
def test_a_scope_beyond_the_role_is_rejected(requested: str) -> None:
    """One unknown or ungranted scope makes the whole request fail; the message does not repeat the request."""
    with pytest.raises(UnknownScope) as rejected:
        select_scopes(ROLE_SCOPES[Role.CLIENT], requested)
    assert requested not in str(rejected.value)


def test_every_error_has_a_stable_code() -> None:
    """Each subclass of AuthError has a snake-case code."""
    pending, seen = AuthError.__subclasses__(), []
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        seen.append(error.code)
    assert set(seen) >= {"invalid_token", "bad_credentials"}
    assert all(code == code.lower().strip("_") and code.replace("_", "").isalpha() for code in seen)
