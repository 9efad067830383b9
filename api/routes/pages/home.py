"""`/`: describes the gateway to a person in a browser, and to a program that asks for JSON."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from api.deps import DrainingDep, HealthDep, SettingsDep
from api.routes.negotiation import choose_media_type
from api.settings import Settings

_FOLDER = Path(__file__).parent
_HTML, _JSON = "text/html", "application/json"
_PASSWORD_COMMAND = "curl {url}/auth/token -d grant_type=password -d username=NAME --data-urlencode 'password=PASSWORD'"  # noqa: S105
_CLIENT_COMMAND = "curl {url}/auth/token -u CLIENT_ID:CLIENT_SECRET -d grant_type=client_credentials"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_home(request: Request, settings: SettingsDep, health: HealthDep, draining: DrainingDep) -> Response:
    """The start page, or its links as JSON for a client that prefers JSON."""
    ready = (await health.check()).ready and not draining.begun
    if choose_media_type(request.headers.get("accept", ""), (_HTML, _JSON)) == _JSON:
        links = {name: path for name, (path, _) in _get_links(settings).items()}
        body = {"name": "Atalaya", "version": version("atalaya"), "status": _describe(ready), "links": links}
        return JSONResponse(body, headers={"Vary": "Accept"})
    policy = f"default-src 'none'; style-src '{_hash_style()}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(_render(settings, ready), headers={"Vary": "Accept", "Content-Security-Policy": policy})


def _render(settings: Settings, ready: bool) -> str:
    url = escape(settings.issuer)
    command = _PASSWORD_COMMAND if settings.auth.password_grant else _CLIENT_COMMAND
    sentence = "Exchange your password for a token:" if settings.auth.password_grant else "Exchange a client's secret:"
    return Template((_FOLDER / "home.html").read_text()).substitute(
        style=_read_style(),
        css_class="ready" if ready else "failed",
        status=_describe(ready),
        version=version("atalaya"),
        how_to_authenticate=sentence,
        token_command=command.format(url=url),
        url=url,
        links="".join(f'<li><a href="{path[1:]}">{text}</a></li>' for path, text in _get_links(settings).values()),
    )


def _get_links(settings: Settings) -> dict[str, tuple[str, str]]:
    """Return paths of this gateway with their descriptions, by name."""
    documentation = {
        "documentation": ("/docs", "API documentation, to read and to try"),
        "openapi": ("/openapi.json", "OpenAPI document"),
    }
    return {
        **(documentation if settings.docs_enabled else {}),
        "status": ("/readyz", "State of each dependency"),
        "authorization_server": ("/.well-known/oauth-authorization-server", "OAuth 2.0 metadata"),
        "keys": ("/.well-known/jwks.json", "Public keys that verify tokens"),
    }


def _describe(ready: bool) -> str:
    return "ready" if ready else "not ready"


@cache
def _read_style() -> str:
    return (_FOLDER / "home.css").read_text()


def _hash_style() -> str:
    """Return the source expression that allows only the page's own style (W3C Content Security Policy)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(_read_style().encode()).digest()).decode()}"
