from __future__ import annotations

from datetime import UTC, datetime

import pytest

from auth.errors import AuthError, InsufficientScope, UnknownScope
from auth.principal import ROLE_SCOPES, Principal, Role, Scope, select_scopes


def test_every_role_grants_scopes_and_only_the_admin_all() -> None:
    """Each role has at least one scope; the admin alone has every one."""
    assert set(ROLE_SCOPES) == set(Role)
    assert all(ROLE_SCOPES.values())
    assert [role for role in Role if ROLE_SCOPES[role] == set(Scope)] == [Role.ADMIN]


def test_a_client_cannot_administer() -> None:
    """A client predicts, reads its predictions and keeps its keys, and nothing else."""
    assert ROLE_SCOPES[Role.CLIENT] == {Scope.PREDICT, Scope.PREDICTIONS_READ, Scope.KEYS_WRITE}


def test_a_missing_scope_is_named() -> None:
    """A principal who lacks a scope is told which one; one who has it passes."""
    principal = Principal("id", "ada", Role.CLIENT, frozenset({Scope.PREDICT}), datetime.now(UTC))
    principal.require(Scope.PREDICT)
    with pytest.raises(InsufficientScope, match="users:admin") as refused:
        principal.require(Scope.USERS_ADMIN)
    assert refused.value.scope == "users:admin"


def test_asking_for_no_scope_grants_the_role_s_own() -> None:
    """An empty request means all that the role grants; a longer one means exactly what it names."""
    assert select_scopes(ROLE_SCOPES[Role.AUDITOR], " ") == ROLE_SCOPES[Role.AUDITOR]
    assert select_scopes(ROLE_SCOPES[Role.ADMIN], "predict audit:read predict") == {Scope.PREDICT, Scope.AUDIT_READ}


@pytest.mark.parametrize("asked", ["users:admin", "predict users:admin", "PREDICT", "everything", "predict,keys:write"])
def test_a_scope_beyond_the_role_is_refused(asked: str) -> None:
    """One scope that is unknown or not the role's refuses the whole request, without repeating it."""
    with pytest.raises(UnknownScope) as refused:
        select_scopes(ROLE_SCOPES[Role.CLIENT], asked)
    assert asked not in str(refused.value)


def test_every_error_has_a_stable_code() -> None:
    """Each class below AuthError has a snake-case code."""
    pending, seen = AuthError.__subclasses__(), []
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        seen.append(error.code)
    assert set(seen) >= {"invalid_token", "bad_credentials"}
    assert all(code == code.lower().strip("_") and code.replace("_", "").isalpha() for code in seen)
