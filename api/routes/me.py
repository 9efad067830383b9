"""`/v1/me`: who the caller is, and what users can change about their own accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from api.deps import (
    Changes,
    Codes,
    CurrentPrincipal,
    ErasureDep,
    GuardedRoute,
    Logins,
    SettingsDep,
    Users,
    require_login,
)
from api.http.audit import record_event
from api.http.problems import document_problems
from api.rate_limits.callers import caller_address
from api.rate_limits.limiter import PASSWORD_LIMIT, CallerLimits
from api.schemas.users import ImageKeeping, ImagePermission, Me, PasswordChange, TotpCode, TotpEnrolment, TotpSecret
from api.settings import Settings
from auth.accounts.passwords import check_password_policy
from auth.accounts.store import User, UserChange
from auth.errors import AuthError, NoAccount, UserNotFound
from storage.transactions import Record

_PROBLEMS = document_problems(401, 403, 409, 422, 429)


async def _get_own_account(request: Request, users: Users, principal: CurrentPrincipal) -> User:
    """Raises NoAccount, KeyBound, LoginRequired."""
    try:
        user = await users.get(principal.subject)
    except UserNotFound:
        await record_event(request, "access", "forbidden", code=NoAccount.code)
        raise NoAccount("Only users of this gateway have an account here. Log in as one.") from None
    await require_login(request, principal)
    return user


OwnAccount = Annotated[User, Depends(_get_own_account)]


@asynccontextmanager
async def _record_refusals(request: Request, event: str) -> AsyncIterator[None]:
    """Record a rejection in the audit log if an AuthError ends the context."""
    try:
        yield
    except AuthError as error:
        await record_event(request, event, "refused", code=error.code)
        raise


def _recording(request: Request, event: str, outcome: str, target: str = "") -> Record[object]:
    return lambda transaction, _: record_event(request, event, outcome, within=transaction, target=target)


def me_router(limits: CallerLimits, rate: str) -> APIRouter:
    """Return the routes of the caller's account. `rate` limits a user's requests that check a password or a code."""
    router = APIRouter(tags=["account"], route_class=GuardedRoute)
    limited = limits.per_principal(rate, PASSWORD_LIMIT)
    router.get("/v1/me")(me)
    router.get("/v1/me/images", responses=document_problems(401, 403))(show_images)
    router.put("/v1/me/images", responses=document_problems(401, 403, 422))(allow_images)
    router.post("/v1/me/password", status_code=204, responses=_PROBLEMS)(limited(change_password))
    router.post("/v1/me/totp", status_code=201, responses=_PROBLEMS)(limited(begin_totp))
    router.post("/v1/me/totp/confirm", status_code=204, responses=_PROBLEMS)(limited(confirm_totp))
    router.delete("/v1/me/totp", status_code=204, responses=_PROBLEMS)(limited(remove_totp))
    return router


async def me(principal: CurrentPrincipal) -> Me:
    """The caller's subject, role and scopes, and when the credential expires."""
    return Me(
        subject=principal.subject,
        name=principal.name,
        role=principal.role,
        scopes=sorted(principal.scopes),
        expires_at=principal.expires_at,
    )


async def show_images(settings: SettingsDep, user: OwnAccount) -> ImageKeeping:
    """Whether the gateway may keep the caller's images for training, and for how many days images are kept."""
    return _describe_keeping(settings, user)


async def allow_images(
    request: Request,
    users: Users,
    changes: Changes,
    settings: SettingsDep,
    erasure: ErasureDep,
    user: OwnAccount,
    body: ImagePermission,
) -> ImageKeeping:
    """Allow the gateway to keep the caller's images for training, or withdraw that, which erases the kept images."""
    record = _recording(request, "images", "allowed" if body.keep else "withdrawn", f"user:{user.id}")
    changed = await users.change(user.id, UserChange(keep_images=body.keep), record=record)
    await changes.catch_up_after_commit()
    if not body.keep:
        erasure.start_images(user.id)
    return _describe_keeping(settings, changed)


def _describe_keeping(settings: Settings, user: User) -> ImageKeeping:
    images = settings.images
    return ImageKeeping(keep=user.keep_images, keep_days=None if images.url is None else images.keep_days)


async def change_password(
    request: Request,
    users: Users,
    logins: Logins,
    changes: Changes,
    principal: CurrentPrincipal,
    user: OwnAccount,
    body: PasswordChange,
) -> None:
    """Set a new password. The caller's other sessions end; this one continues."""
    async with _record_refusals(request, "password"):
        new = body.new_password.get_secret_value()
        check_password_policy(new, user.name)  # before the current one is hashed, which takes long
        checked = await logins.check_password(user, body.current_password.get_secret_value(), caller_address(request))
        change = UserChange(checked_version=checked.credentials_version)
        record = _recording(request, "password", "changed")
        await users.change(user.id, change, password=new, keep_session=principal.session_id, record=record)
        await changes.catch_up_after_commit()


async def begin_totp(
    request: Request, logins: Logins, codes: Codes, user: OwnAccount, body: TotpEnrolment
) -> TotpSecret:
    """Create a secret for an authenticator app (RFC 6238). Logins need no code until one code confirms the secret."""
    async with _record_refusals(request, "totp"):
        await logins.check_password(user, body.current_password.get_secret_value(), caller_address(request))
        enrolment = await codes.begin(user, record=_recording(request, "totp", "begun"))
    return TotpSecret(secret=enrolment.secret, uri=enrolment.uri)


async def confirm_totp(
    request: Request,
    logins: Logins,
    changes: Changes,
    principal: CurrentPrincipal,
    user: OwnAccount,
    body: TotpCode,
) -> None:
    """Require a code for every login from now on. The caller's other sessions end; this one continues."""
    record = _recording(request, "totp", "confirmed")
    async with _record_refusals(request, "totp"):
        code, address = body.code.get_secret_value(), caller_address(request)
        await logins.confirm_codes(user, code, address, principal.session_id, record=record)
        await changes.catch_up_after_commit()


async def remove_totp(request: Request, logins: Logins, user: OwnAccount, body: TotpCode) -> None:
    """Stop requiring codes for logins; this requires a current code."""
    record = _recording(request, "totp", "removed")
    async with _record_refusals(request, "totp"):
        await logins.remove_codes(user, body.code.get_secret_value(), caller_address(request), record=record)
