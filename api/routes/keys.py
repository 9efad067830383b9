"""`/v1/keys`: a user's API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from api.deps import Caller, Changes, GuardedRoute, Keys, Users, choose_user, require_login
from api.http.audit import record_event
from api.http.paging import MAX_PAGE, PageLimit, cut_page
from api.http.problems import document_problems
from api.schemas.fields import UserId
from api.schemas.keys import KeyResponse, KeyWithSecret, NewKey, Revocation, Rotation
from auth.api_keys.rules import can_see, check_rotation, restrict_terms
from auth.api_keys.store import ApiKey, KeyStore
from auth.errors import InsufficientScope, KeyBound, KeyEnded, KeyNotFound, NoAccount, TooManyKeys
from auth.principal import Principal, Scope
from storage.transactions import Record

router = APIRouter(
    prefix="/v1/keys",
    tags=["keys"],
    responses=document_problems(401, 403, 404, 409, 422),
    route_class=GuardedRoute,
)
KeyUser = Annotated[Principal, Depends(Caller(Scope.KEYS_WRITE))]


@router.post("", status_code=201)
async def create(request: Request, response: Response, keys: Keys, principal: KeyUser, body: NewKey) -> KeyWithSecret:
    """Create a key for the caller. Only this response contains the whole key."""
    await _check_credential(request, principal)
    creator = await keys.get(principal.key_id) if principal.key_id else None
    try:
        terms = restrict_terms(principal, creator, body.terms())
        key, text = await keys.create(principal.subject, terms, principal.key_id, record=_recording(request, "created"))
    except (InsufficientScope, KeyBound, NoAccount, TooManyKeys) as error:
        await record_event(request, "key", "refused", code=error.code)
        raise
    response.headers["Location"] = f"/v1/keys/{key.id}"
    return KeyWithSecret.of_secret(key, text)


async def _choose_owner(request: Request, users: Users, principal: KeyUser, user: UserId | None = None) -> str:
    """Return the id of the user whose keys are listed. Raises InsufficientScope, UserNotFound."""
    return await choose_user(request, users, principal, user, "key")


@router.get("")
async def list_keys(
    request: Request,
    response: Response,
    keys: Keys,
    owner: Annotated[str, Depends(_choose_owner)],
    limit: PageLimit = MAX_PAGE,
    cursor: Annotated[str | None, Query(description="the last id of a page")] = None,
) -> list[KeyResponse]:
    """The caller's own keys, oldest first; with `users:admin`, those of the user with the id `user`.

    If there are more, the header `Link` leads to the next page.
    """
    listed = await keys.list(owner, limit + 1, cursor)
    return [KeyResponse.of(key) for key in cut_page(request, response, listed, limit, "id")]


@router.get("/{key_id}")
async def show(request: Request, keys: Keys, principal: KeyUser, key_id: str) -> KeyResponse:
    """One key. Another user's key is not found, unless the caller has `users:admin`."""
    return KeyResponse.of(await _find_visible(request, keys, principal, key_id))


@router.post("/{key_id}/rotate")
async def rotate(
    request: Request, keys: Keys, changes: Changes, principal: KeyUser, key_id: str, body: Rotation | None = None
) -> KeyWithSecret:
    """Give one of the caller's own keys a new secret; the old secret stays valid for `overlap_hours`."""
    body = body or Rotation()
    await _check_credential(request, principal)
    key = await _find_visible(request, keys, principal, key_id, own=True)
    record = _recording(request, "rotated")
    try:
        check_rotation(principal, key, extends=body.expires_days is not None)
        key, text = await keys.rotate(
            key.id, body.overlap, body.expires_at, used_digest=principal.key_digest, record=record
        )
    except (InsufficientScope, KeyBound, KeyEnded) as error:
        await record_event(request, "key", "refused", target=f"key:{key.id}", code=error.code)
        raise
    await changes.catch_up_after_commit()
    return KeyWithSecret.of_secret(key, text)


@router.delete("/{key_id}", status_code=204, response_class=Response)
async def revoke(
    request: Request,
    keys: Keys,
    changes: Changes,
    principal: KeyUser,
    key_id: str,
    revocation: Annotated[Revocation, Query()],
) -> None:
    """Revoke a key for good; every process rejects it within a second.

    With `cascade` or `leaked`, the keys that were created with it are revoked, too, and those created with them.
    """
    key = await _find_visible(request, keys, principal, key_id)

    async def record(transaction: AsyncConnection, revoked: Sequence[ApiKey]) -> None:
        for each in revoked:
            detail = revocation.describe(key, each)
            await record_event(request, "key", "revoked", within=transaction, target=f"key:{each.id}", **detail)

    await keys.revoke(key.id, cascade=revocation.includes_descendants, record=record)
    await changes.catch_up_after_commit()


def _recording(request: Request, outcome: str) -> Record[ApiKey]:
    return lambda transaction, key: record_event(request, "key", outcome, within=transaction, target=f"key:{key.id}")


async def _check_credential(request: Request, principal: Principal) -> None:
    """Check that the caller has logged in, because a key would outlive a client certificate. Raises LoginRequired.

    An API key needs no check, because it becomes the recorded parent of the new one. Clients have no keys.
    """
    if principal.key_id is None and principal.role is not None:
        await require_login(request, principal)


async def _find_visible(
    request: Request, keys: KeyStore, principal: Principal, key_id: str, *, own: bool = False
) -> ApiKey:
    """Raises KeyNotFound, both for a key that does not exist and for one that the caller may not see."""
    try:
        key = await keys.get(key_id)
        if not can_see(principal, key) or (own and key.user_id != principal.subject):
            raise KeyNotFound
    except KeyNotFound:
        await record_event(request, "key", "not_found", target=f"key:{key_id}")
        raise
    return key
