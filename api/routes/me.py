"""`/v1/me`: what the gateway knows of the caller, and what users do with their own accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from api.deps import CurrentPrincipal, GuardedRoute, Rooms
from api.http.audit import record
from api.rate_limits.limiter import caller_address
from api.schemas.predictions import Me, Problem
from api.schemas.users import PasswordChange, TotpBeginning, TotpCode, TotpSecret
from auth.accounts.passwords import check_password_policy
from auth.accounts.store import User
from auth.errors import AuthError, KeyBound, NoAccount, UserNotFound

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (401, 403, 409, 422, 429)
}

router = APIRouter(tags=["account"], route_class=GuardedRoute)


@router.get("/v1/me")
async def me(principal: CurrentPrincipal) -> Me:
    """The caller's subject, role and scopes, and when the credentials end."""
    return Me(
        subject=principal.subject,
        name=principal.name,
        role=principal.role,
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
    )


async def _own_account(rooms: Rooms, principal: CurrentPrincipal) -> User:
    """Raises KeyBound, NoAccount."""
    if principal.key_id is not None:
        raise KeyBound("An API key cannot change how its owner logs in. Log in to do that.")
    try:
        return await rooms["accounts"].get(principal.subject)
    except UserNotFound:
        raise NoAccount("Only users of this gateway have a password here. Log in as one.") from None


OwnAccount = Annotated[User, Depends(_own_account)]


@asynccontextmanager
async def _recorded(request: Request, event: str, outcome: str) -> AsyncIterator[None]:
    """Note how it ends, refused or done."""
    try:
        yield
    except AuthError as error:
        await record(request, event, "refused", code=error.code)
        raise
    await record(request, event, outcome)


@router.post("/v1/me/password", status_code=204, responses=_REFUSALS)
async def change_password(
    request: Request, rooms: Rooms, principal: CurrentPrincipal, user: OwnAccount, asked: PasswordChange
) -> None:
    """Set another password. The caller's other log-ins end, this one stays."""
    async with _recorded(request, "password", "changed"):
        new = asked.new_password.get_secret_value()
        check_password_policy(new, user.name)  # before the other one is hashed, which takes long
        await rooms["logins"].check_password(user, asked.current_password.get_secret_value(), caller_address(request))
        await rooms["accounts"].change(user.id, password=new, keep_session=principal.session_id)
        await rooms["changes"].catch_up()


@router.post("/v1/me/totp", status_code=201, responses=_REFUSALS)
async def begin_totp(request: Request, rooms: Rooms, user: OwnAccount, asked: TotpBeginning) -> TotpSecret:
    """Make a secret for an authenticator app (RFC 6238). Nothing is asked for until a code confirms it."""
    async with _recorded(request, "totp", "begun"):
        await rooms["logins"].check_password(user, asked.current_password.get_secret_value(), caller_address(request))
        enrolment = await rooms["codes"].begin(user)
    return TotpSecret(secret=enrolment.secret, uri=enrolment.uri)


@router.post("/v1/me/totp/confirm", status_code=204, responses=_REFUSALS)
async def confirm_totp(
    request: Request, rooms: Rooms, principal: CurrentPrincipal, user: OwnAccount, asked: TotpCode
) -> None:
    """From now on log-ins need a code. The caller's other log-ins end, this one stays."""
    async with _recorded(request, "totp", "confirmed"):
        await rooms["codes"].confirm(user, asked.code.get_secret_value(), principal.session_id)
        await rooms["changes"].catch_up()


@router.delete("/v1/me/totp", status_code=204, responses=_REFUSALS)
async def remove_totp(request: Request, rooms: Rooms, user: OwnAccount, asked: TotpCode) -> None:
    """Log-ins need no code any more, for one that is current."""
    async with _recorded(request, "totp", "removed"):
        await rooms["logins"].remove_codes(user, asked.code.get_secret_value(), caller_address(request))
