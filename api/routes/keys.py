"""`/v1/keys`: a user's API keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from api.deps import Caller, GuardedRoute, Rooms, State
from api.http.audit import record
from api.schemas.keys import KeyResponse, KeyWithSecret, NewKey, Rotation
from api.schemas.predictions import Problem
from auth.api_keys.rules import can_see, check_rotation, restrict_terms
from auth.api_keys.store import ApiKey
from auth.errors import InsufficientScope, KeyBound, KeyNotFound
from auth.principal import Principal, Scope

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (401, 403, 404, 409, 422)
}

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=_REFUSALS, route_class=GuardedRoute)
KeyUser = Annotated[Principal, Depends(Caller(Scope.KEYS_WRITE))]


@router.post("", status_code=201)
async def create(request: Request, rooms: Rooms, principal: KeyUser, asked: NewKey) -> KeyWithSecret:
    """Make a key of the caller's own. The answer alone holds the whole key."""
    maker = await rooms["keys"].get(principal.key_id) if principal.key_id else None
    try:
        terms = restrict_terms(principal, maker, asked.terms())
    except (InsufficientScope, KeyBound) as error:
        await record(request, "key", "refused", code=error.code)
        raise
    key, text = await rooms["keys"].create(principal.subject, terms)
    await record(request, "key", "created", target=f"key:{key.id}")
    return KeyWithSecret.showing(key, text)


@router.get("")
async def list_keys(request: Request, rooms: Rooms, principal: KeyUser, user: str | None = None) -> list[KeyResponse]:
    """The caller's own keys, oldest first; with `users:admin`, also those of the user with the id `user`."""
    if user is not None and user != principal.subject:
        try:
            principal.require(Scope.USERS_ADMIN)
        except InsufficientScope as error:
            await record(request, "key", "refused", code=error.code)
            raise
    return [KeyResponse.of(key) for key in await rooms["keys"].list(user or principal.subject)]


@router.get("/{key_id}")
async def show(request: Request, rooms: Rooms, principal: KeyUser, key_id: str) -> KeyResponse:
    """One key. Another's is not found, unless the caller holds `users:admin`."""
    return KeyResponse.of(await _visible(request, rooms, principal, key_id))


@router.post("/{key_id}/rotate")
async def rotate(
    request: Request, rooms: Rooms, principal: KeyUser, key_id: str, asked: Rotation | None = None
) -> KeyWithSecret:
    """Give a key of the caller's own a new secret; the old one counts for a while beside it."""
    asked = asked or Rotation()
    key = await _visible(request, rooms, principal, key_id, own=True)
    try:
        check_rotation(principal, key, extends=asked.expires_days is not None)
    except (InsufficientScope, KeyBound) as error:
        await record(request, "key", "refused", target=f"key:{key.id}", code=error.code)
        raise
    key, text = await rooms["keys"].rotate(key.id, asked.overlap, asked.expires_at)
    await rooms["changes"].catch_up()
    await record(request, "key", "rotated", target=f"key:{key.id}")
    return KeyWithSecret.showing(key, text)


@router.delete("/{key_id}", status_code=204, response_class=Response)
async def revoke(request: Request, rooms: Rooms, principal: KeyUser, key_id: str) -> None:
    """End a key for good, everywhere within a second."""
    key = await _visible(request, rooms, principal, key_id)
    await rooms["keys"].revoke(key.id)
    await rooms["changes"].catch_up()
    await record(request, "key", "revoked", target=f"key:{key.id}")


async def _visible(request: Request, rooms: State, principal: Principal, key_id: str, *, own: bool = False) -> ApiKey:
    """Raises KeyNotFound, the same for a key that is not there and for one that is not the caller's to see."""
    try:
        key = await rooms["keys"].get(key_id)
        if not can_see(principal, key) or (own and key.user_id != principal.subject):
            raise KeyNotFound
    except KeyNotFound:
        await record(request, "key", "not_found", target=f"key:{key_id}")
        raise
    return key
