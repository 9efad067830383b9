"""`atalaya demo`: start a gateway, make one authenticated prediction, and print the `curl` command for the next."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from api.commands.database import run_with_accounts
from api.commands.users import describe_user_event
from api.errors import CommandFailed
from api.settings import Settings, child_environment, load_settings
from auth.accounts.service import AccountService
from auth.accounts.store import User
from auth.errors import UserExists
from auth.principal import Role

_SAMPLE = Path("samples/yellowstone_forest.jpg")
_USER = "demo"
_START_LIMIT_S = 60.0


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving until Ctrl-C.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Start a gateway and make one authenticated prediction on a sample image."""
    settings = load_settings()
    if settings.in_production:
        raise CommandFailed("The demo resets a user's password: it does not run with ENVIRONMENT=production.")
    if settings.tls_certificate is not None:
        raise CommandFailed("The demo uses plain HTTP: unset TLS_CERTIFICATE, or use `atalaya serve`.")
    if not _SAMPLE.exists():
        raise CommandFailed(f"{_SAMPLE} does not exist here. Run the demo in the project's folder.")
    server = _start_server(settings, host)
    try:
        url = f"http://127.0.0.1:{settings.port}"
        with httpx.Client(base_url=url, timeout=10) as client:
            _wait_until_ready(client, server)
            _make_prediction(client, url, settings)
        if stay:
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        _stop_server(server)


def _start_server(settings: Settings, host: str) -> subprocess.Popen[bytes]:
    # The request log would hide what the demo prints, unless the user has chosen a level.
    changes = {} if "log_level" in settings.model_fields_set else {"LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "api", "serve", "--host", host, "--port", str(settings.port)]
    return subprocess.Popen(command, env=child_environment(changes), start_new_session=True)


def _stop_server(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGINT)  # unlike SIGTERM, it skips the drain time for other clients
    server.wait(timeout=15)


def _wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CommandFailed("The gateway stopped while starting; it has printed the reason above.")
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise CommandFailed(f"The gateway was not ready within {_START_LIMIT_S:.0f} s.")


def _make_prediction(client: httpx.Client, url: str, settings: Settings) -> None:
    password = secrets.token_urlsafe(16)
    run_with_accounts(
        settings,
        lambda accounts: _reset_demo_user(accounts, password),
        describe_user_event("changed", fields="password"),
    )
    form = {"grant_type": "password", "username": _USER, "password": password}
    token = _read_body(client.post("/auth/token", data=form))["access_token"]
    prediction = _read_body(
        client.post(
            "/v1/predictions",
            files={"file": (_SAMPLE.name, _SAMPLE.read_bytes())},
            headers={"Authorization": f"Bearer {token}"},
        )
    )
    model = prediction["model"]
    typer.echo(f"""
{_SAMPLE}: {prediction["label"]}, probability {prediction["confidence"]:.4f} ({model["name"]}-v{model["version"]})

To make another prediction, paste this; the token is valid for {settings.auth.access_token_seconds // 60} minutes:

curl -s {url}/predict-land-use -F file=@{_SAMPLE} -H 'Authorization: Bearer {token}'

To get another token:

curl -s {url}/auth/token -d grant_type=password -d username={_USER} -d password={password}
""")


async def _reset_demo_user(accounts: AccountService, password: str) -> User:
    try:
        return await accounts.add(_USER, Role.CLIENT, password)
    except UserExists:
        user = await accounts.get_by_name(_USER)
        return await accounts.change(user.id, password=password)


def _read_body(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise CommandFailed(f"The gateway answered {response.status_code}: {response.text}")
    body: dict[str, Any] = response.json()
    return body
