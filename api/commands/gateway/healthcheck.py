"""`atalaya healthcheck`: whether the local gateway is ready, for containers and scripts."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from api.commands.gateway.running import find_gateway
from api.commands.output import JsonFlag, print_json
from api.errors import CommandFailed
from api.server.listeners import local_url
from api.settings import load_local_settings

_TIMEOUT_S = 3.0
_PAUSE_S = 0.5


def healthcheck(
    url: Annotated[
        str | None, typer.Option(help="URL of the gateway. Default: the one running in this installation.")
    ] = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait until the gateway is ready.")
    ] = 0.0,
    as_json: JsonFlag = False,
) -> None:
    """Check that the gateway is ready. Exit status 0 if it is, 1 if not."""
    deadline = time.monotonic() + wait
    while True:
        address = url or _find_url()  # a gateway that is starting may not have published its address yet
        readiness, problem = _check(address)
        if problem is None or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_S)
    if as_json and readiness is not None:
        print_json(readiness)
    if problem is not None:
        raise CommandFailed(problem)
    if not as_json:
        typer.echo(f"The gateway at {address} is ready.")


def _check(url: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return the body of /readyz, if there is one, and why the gateway is not ready."""
    try:
        status, readiness = _get_readiness(url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, f"The gateway at {url} does not respond: {error}."
    if status == http.HTTPStatus.OK:
        return readiness, None
    checks = readiness.get("checks", {})
    states = ", ".join(f"{name} {state}" for name, state in checks.items() if state != "ok")
    return readiness, f"The gateway at {url} is {readiness.get('status', 'not ready')}. {states}"


def _find_url() -> str:
    settings = load_local_settings()
    running = find_gateway(settings.port)
    scheme = "https" if settings.tls_certificate else "http"
    return running.url if running else local_url(scheme, settings.host, settings.port)


def _get_readiness(url: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of /readyz. Raises OSError, ValueError, HTTPException."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError("this is not an http:// or https:// URL")
    if parts.scheme == "https":
        # The certificate names the public host. Nothing secret is sent.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = json.loads(response.read())
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ValueError("/readyz is not a JSON object")
    return response.status, body
