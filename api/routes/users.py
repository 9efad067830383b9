"""`/v1/users`: the gateway's users, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from api.deps import (
    Caller,
    Changes,
    CurrentPrincipal,
    Deletion,
    ErasureDep,
    GuardedRoute,
    Users,
    require_login,
)
from api.http.audit import record_event
from api.http.paging import MAX_PAGE, PageLimit, cut_page
from api.http.problems import document_problems
from api.schemas.fields import UuidInPath
from api.schemas.users import NewUser, UserPatch, UserResponse
from auth.accounts.store import User, UserChange
from auth.errors import AuthError
from auth.principal import Scope
from storage.transactions import Record

router = APIRouter(
    prefix="/v1/users",
    tags=["users"],
    responses=document_problems(401, 403, 404, 409, 422),
    dependencies=[Depends(Caller(Scope.USERS_ADMIN))],
    route_class=GuardedRoute,
)


@router.get("")
async def list_users(
    request: Request,
    response: Response,
    users: Users,
    limit: PageLimit = MAX_PAGE,
    cursor: Annotated[str, Query(pattern=r"^[a-z0-9._@-]{0,64}$", description="the last name of a page")] = "",
) -> list[UserResponse]:
    """Users, by name. If there are more, the header `Link` leads to the next page."""
    listed = await users.list(limit + 1, cursor)
    return [UserResponse.of(user) for user in cut_page(request, response, listed, limit, "name")]


@router.post("", status_code=201, dependencies=[Depends(require_login)])
async def create(request: Request, response: Response, users: Users, body: NewUser) -> UserResponse:
    """Create a user."""
    record = _recording(request, "created", role=body.role)
    try:
        user = await users.add(body.name, body.role, body.password.get_secret_value(), body.quotas(), record=record)
    except AuthError as error:
        await record_event(request, "user", "refused", code=error.code)
        raise
    response.headers["Location"] = f"/v1/users/{user.id}"
    return UserResponse.of(user)


@router.get("/{user_id}")
async def show(users: Users, user_id: UuidInPath) -> UserResponse:
    """One user."""
    return UserResponse.of(await users.get(user_id))


@router.patch("/{user_id}")
async def change(
    request: Request,
    users: Users,
    changes: Changes,
    erasure: ErasureDep,
    principal: CurrentPrincipal,
    user_id: UuidInPath,
    body: UserPatch,
) -> UserResponse:
    """Change a user. A new role or password, or disabling the user, ends all the user's sessions within a second.

    An API key, a client's token or a certificate can only disable the user, set quotas and withdraw `keep_images`.
    """
    if body.needs_login:
        await require_login(request, principal)
    password = body.password.get_secret_value() if body.password is not None else None
    user_change = UserChange(role=body.role, disabled=body.disabled, quotas=body.quotas(), keep_images=body.keep_images)
    record = _recording(request, _name_outcome(body), **body.describe())
    try:
        user = await users.change(user_id, user_change, password=password, record=record)
    except AuthError as error:
        await record_event(request, "user", "refused", target=f"user:{user_id}", code=error.code)
        raise
    await changes.catch_up_after_commit()
    if body.keep_images is False:
        erasure.start_images(user.id)
    return UserResponse.of(user)


@router.delete("/{user_id}", status_code=204, response_class=Response, dependencies=[Depends(require_login)])
async def delete(
    request: Request,
    deletion: Deletion,
    changes: Changes,
    erasure: ErasureDep,
    principal: CurrentPrincipal,
    user_id: UuidInPath,
) -> None:
    """Delete a user for good; every process rejects the user's credentials within a second.

    Afterwards the user's images, and what the ledger and the audit log hold about the user, are erased in the
    background.
    """

    async def record(transaction: AsyncConnection, deleted: User) -> None:
        await _recording(request, "deleted", role=deleted.role)(transaction, deleted)

    try:
        user = await deletion.delete(user_id, principal.subject, record=record)
    except AuthError as error:
        await record_event(request, "user", "refused", target=f"user:{user_id}", code=error.code)
        raise
    await changes.catch_up_after_commit()
    erasure.start(user.id, principal.subject)


def _recording(request: Request, outcome: str, **detail: str) -> Record[User]:
    return lambda transaction, user: record_event(
        request, "user", outcome, within=transaction, target=f"user:{user.id}", **detail
    )


def _name_outcome(body: UserPatch) -> str:
    if body.disabled is None:
        return "changed"
    return "disabled" if body.disabled else "enabled"
