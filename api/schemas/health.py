"""The response of `/readyz`."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Readiness(BaseModel):
    status: str = Field(description="ready, not ready, or stopping")
    checks: dict[str, str] = Field(description="the state of each dependency")
