"""`/v1/users`: whom the gateway knows, for those who administer it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from api.deps import Caller, GuardedRoute, Rooms
from api.http.audit import record
from api.schemas.predictions import Problem
from api.schemas.users import NewUser, UserPatch, UserResponse
from auth.accounts.store import UserChange
from auth.errors import AuthError
from auth.principal import Scope

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (401, 403, 404, 409, 422)
}

router = APIRouter(
    prefix="/v1/users",
    tags=["users"],
    responses=_REFUSALS,
    dependencies=[Depends(Caller(Scope.USERS_ADMIN))],
    route_class=GuardedRoute,
)


@router.get("")
async def list_users(rooms: Rooms) -> list[UserResponse]:
    """All users, by name."""
    return [UserResponse.of(user) for user in await rooms["accounts"].list()]


@router.post("", status_code=201)
async def create(request: Request, rooms: Rooms, asked: NewUser) -> UserResponse:
    """Make a user."""
    try:
        user = await rooms["accounts"].add(asked.name, asked.role, asked.password.get_secret_value(), asked.quotas())
    except AuthError as error:
        await record(request, "user", "refused", code=error.code)
        raise
    await record(request, "user", "created", target=f"user:{user.id}", role=user.role)
    return UserResponse.of(user)


@router.get("/{user_id}")
async def show(rooms: Rooms, user_id: str) -> UserResponse:
    """One user."""
    return UserResponse.of(await rooms["accounts"].get(user_id))


@router.patch("/{user_id}")
async def change(request: Request, rooms: Rooms, user_id: str, asked: UserPatch) -> UserResponse:
    """Change a user. Another role, a new password and disabling end the user's log-ins everywhere within a second."""
    password = asked.password.get_secret_value() if asked.password is not None else None
    change = UserChange(role=asked.role, disabled=asked.disabled, quotas=asked.quotas())
    try:
        user = await rooms["accounts"].change(user_id, change, password=password)
    except AuthError as error:
        await record(request, "user", "refused", target=f"user:{user_id}", code=error.code)
        raise
    await rooms["changes"].catch_up()
    await record(request, "user", _outcome(asked), target=f"user:{user.id}", **asked.told())
    return UserResponse.of(user)


def _outcome(asked: UserPatch) -> str:
    if asked.disabled is None:
        return "changed"
    return "disabled" if asked.disabled else "enabled"
