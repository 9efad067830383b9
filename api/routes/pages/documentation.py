"""`/openapi.json`, and `/docs`: Swagger UI from this folder, which works offline and under a strict policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path
from string import Template

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

_FOLDER = Path(__file__).parent
_ASSETS = {
    "swagger-ui.css": _FOLDER / "swagger_ui" / "swagger-ui.css",
    "swagger-ui-bundle.js": _FOLDER / "swagger_ui" / "swagger-ui-bundle.js",
    "documentation.js": _FOLDER / "documentation.js",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def show_documentation() -> Response:
    """The interactive documentation."""
    return HTMLResponse(_render_page(), headers={"Content-Security-Policy": _POLICY})


@router.get("/openapi.json")
async def show_openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs/{name}")
async def get_asset(name: str) -> Response:
    """A script or style of the documentation. Its integrity is in the page, so a new version needs no new name."""
    if name not in _ASSETS:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return FileResponse(_ASSETS[name], headers={"Cache-Control": "public, max-age=86400"})


@cache
def _render_page() -> str:
    """Fill the page with the digest of each asset (W3C Subresource Integrity)."""
    digests = {name: hashlib.sha384(path.read_bytes()).digest() for name, path in _ASSETS.items()}
    fields = {name.translate(_NO_PUNCTUATION): _to_integrity(digest) for name, digest in digests.items()}
    return Template((_FOLDER / "documentation.html").read_text()).substitute(fields)


_NO_PUNCTUATION = str.maketrans("-.", "__")


def _to_integrity(digest: bytes) -> str:
    return f"sha384-{base64.b64encode(digest).decode()}"
