"""The base class of response bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResponseBody(BaseModel):
    """Builds its validator with the first response instead of at import: most processes use few of them.

    Request bodies cannot: FastAPI would print a warning from pydantic with the first of each.
    """

    model_config = ConfigDict(defer_build=True)
