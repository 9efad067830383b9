"""The bodies of errors."""

from __future__ import annotations

from pydantic import BaseModel


class Problem(BaseModel):
    """RFC 9457 problem document; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class OAuthProblem(BaseModel):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str
