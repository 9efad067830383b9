"""The responses of the OAuth endpoints."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import ResponseBody


class Token(ResponseBody):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105  (the type's name in RFC 6750)
    expires_in: int = Field(description="seconds")
    refresh_token: str | None = None
    scope: str


class Introspection(ResponseBody):
    """RFC 7662, section 2.2. For an invalid token only `active` is present."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    username: str | None = None
    token_type: str | None = None
    exp: int | None = Field(None, description="seconds since 1970")
    sub: str | None = None
    aud: str | None = None
    iss: str | None = None
    jti: str | None = None
