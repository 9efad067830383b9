"""The bodies of errors."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import ResponseBody


class Problem(ResponseBody):
    """RFC 9457 problem document; `code` is stable. Under /v2 it is also an error of the inference protocol."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    error: str | None = Field(default=None, description="under /v2 only: the same text as `detail`")


class OAuthProblem(ResponseBody):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str
