"""The response of `/readyz`."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import ResponseBody


class Readiness(ResponseBody):
    status: str = Field(description="ready, not ready, or stopping")
    checks: dict[str, str] = Field(description="the state of each dependency")
