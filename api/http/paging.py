"""Paged lists: the parameters `limit` and `cursor`, and the link to the next page (RFC 8288)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

MAX_PAGE = 1000
ENTRY_ID = (
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"  # the ids of ledger entries, which are the cursors of their pages
)

PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="entries in a page")]

T = TypeVar("T")


def cut_page(request: Request, response: Response, listed: Sequence[T], limit: int, cursor_of: str) -> Sequence[T]:
    """Return the first `limit` entries. If there are more, set the response's `Link` to the next page.

    `cursor_of` names the attribute of the entries whose last value on this page becomes the next page's cursor.
    """
    page = listed[:limit]
    if len(listed) > limit:
        query = {**request.query_params, "limit": limit, "cursor": getattr(page[-1], cursor_of)}
        response.headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return page
