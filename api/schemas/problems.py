"""The bodies of errors."""

from __future__ import annotations

from api.schemas.base import ResponseBody


class Problem(ResponseBody):
    """RFC 9457 problem document; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class OAuthProblem(ResponseBody):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str
