"""`atalaya demo`: a gateway, one authenticated prediction, and the `curl` to make the next."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.users import noted, with_accounts
from api.errors import CommandFailed
from api.settings import Settings, child_environment, load_settings
from auth.accounts.service import AccountService
from auth.accounts.store import User
from auth.errors import UserExists
from auth.principal import Role

if TYPE_CHECKING:
    import httpx

_SAMPLE = Path("samples/yellowstone_forest.jpg")
_USER = "demo"
_START_LIMIT_S = 60.0


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Serve on, until Ctrl-C.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve, and make one authenticated prediction on a sample image."""
    import httpx

    settings = load_settings()
    if settings.in_production:
        raise CommandFailed("The demo resets a user's password: it does not run with ENVIRONMENT=production.")
    if settings.tls_certificate is not None:
        raise CommandFailed("The demo speaks plain HTTP: unset TLS_CERTIFICATE, or use `atalaya serve`.")
    if not _SAMPLE.exists():
        raise CommandFailed(f"No {_SAMPLE} here. Run this in the project's folder.")
    server = _start(settings, host)
    try:
        url = f"http://127.0.0.1:{settings.port}"
        with httpx.Client(base_url=url, timeout=10) as client:
            _wait_until_ready(client, server)
            _show(client, url, settings)
        if stay:
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        _stop(server)


def _start(settings: Settings, host: str) -> subprocess.Popen[bytes]:
    # The request log would bury what the demo prints; a level that was asked for stays.
    changes = {} if "log_level" in settings.model_fields_set else {"LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "api", "serve", "--host", host, "--port", str(settings.port)]
    return subprocess.Popen(command, env=child_environment(changes), start_new_session=True)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGINT)  # nobody else calls: there is nobody to wait for
    server.wait(timeout=15)


def _wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CommandFailed("The gateway stopped while starting; its reason is above.")
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise CommandFailed(f"The gateway was not ready within {_START_LIMIT_S:.0f} s.")


def _show(client: httpx.Client, url: str, settings: Settings) -> None:
    password = secrets.token_urlsafe(16)
    with_accounts(settings, lambda accounts: _reset_demo_user(accounts, password), noted("changed", fields="password"))
    form = {"grant_type": "password", "username": _USER, "password": password}
    token = _checked(client.post("/auth/token", data=form))["access_token"]
    answer = _checked(
        client.post(
            "/v1/predictions",
            files={"file": (_SAMPLE.name, _SAMPLE.read_bytes())},
            headers={"Authorization": f"Bearer {token}"},
        )
    )
    model = answer["model"]
    typer.echo(f"""
{_SAMPLE}: {answer["label"]}, probability {answer["confidence"]:.4f} ({model["name"]}-v{model["version"]})

Paste this for the next one; the token lasts {settings.auth.access_token_seconds // 60} minutes:

curl -s {url}/predict-land-use -F file=@{_SAMPLE} -H 'Authorization: Bearer {token}'

Another token:

curl -s {url}/auth/token -d grant_type=password -d username={_USER} -d password={password}
""")


async def _reset_demo_user(accounts: AccountService, password: str) -> User:
    try:
        return await accounts.add(_USER, Role.CLIENT, password)
    except UserExists:
        user = await accounts.get_by_name(_USER)
        return await accounts.change(user.id, password=password)


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise CommandFailed(f"The gateway answered {answer.status_code}: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body
