"""The base class of response bodies."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResponseBody(BaseModel):
    """Builds its validator with the first response instead of at import, because most processes use few of them.

    Request bodies cannot do that: FastAPI would print a pydantic warning with the first body of each class.
    """

    model_config = ConfigDict(defer_build=True)
