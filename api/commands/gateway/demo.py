"""`atalaya demo`: start a gateway, make one authenticated prediction, and print the `curl` command for the next."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.accounts.users import describe_issued_token, describe_user_event, issue_token
from api.commands.database import recording, run_with_accounts, run_with_engine
from api.commands.gateway.processes import Listeners, open_listeners
from api.commands.gateway.serve import describe_serving, serve_on
from api.commands.output import format_count
from api.commands.secrets import add_secrets, find_missing_secrets
from api.errors import CommandFailed
from api.production import find_start_problems
from api.server.allocator import limit_memory_use
from api.server.worker_process import fork
from api.services.auth import token_policy
from api.services.secrets.signing_keys import open_keyring
from api.settings import INSTALLATION, Settings, load_settings, reload_settings
from auth.accounts.service import AccountService
from auth.accounts.store import User
from auth.errors import UserExists
from auth.principal import ROLE_SCOPES, Role
from auth.sessions import Session, SessionStore
from auth.tokens.access import TokenAuthority

_SAMPLE = INSTALLATION / "samples" / "yellowstone_forest.jpg"
_USER = "demo"
_DEFAULT_PORT = 8000
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 15.0
_ABSTENTIONS = {
    "not_an_aerial_image": "the image does not look like an aerial scene",
    "low_confidence": "its confidence in the land use is too low",
}


class _Account(Struct, frozen=True):
    """The demo's user, and the password if this run added the user."""

    user: User
    password: str | None


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving until Ctrl-C.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: $HOST, or 127.0.0.1.")] = None,
) -> None:
    """Start a gateway and make one authenticated prediction on a sample image."""
    options: dict[str, Any] = {} if host is None else {"host": host}
    settings = load_settings(**options)
    if settings.in_production:
        raise CommandFailed("The demo adds a user, so it does not run with ENVIRONMENT=production.")
    if settings.tls_certificate is not None:
        raise CommandFailed("The demo uses plain HTTP: unset TLS_CERTIFICATE, or use `atalaya serve`.")
    if not _SAMPLE.exists():
        raise CommandFailed(f"{_SAMPLE} does not exist. The demo needs the sample images of the project.")
    listeners = open_listeners(settings)
    # From here on no other process can listen on the port, so what the demo sends there reaches its own gateway.
    for listener in listeners.requests:
        listener.listen()
    if add_secrets(find_missing_secrets(settings)):
        settings = reload_settings(**options)
    url = listeners.local_url("http")
    with _gateway(settings, listeners) as server:
        _wait_until_ready(url, server)
        account, token = _get_token(settings)
        prediction = _predict(url, token)
        for listener in listeners.requests:
            listener.close()
        _print_result(prediction)
        _print_next_steps(url, account, token, settings)
        if stay:
            typer.echo(describe_serving(url, settings))
            server.wait()
            raise CommandFailed("The gateway has stopped; the reason is printed above.")
    command = f"make run{_format_port(settings.port)}"
    typer.echo(f"The demo has stopped its gateway. `{command}` starts one that keeps serving, for the commands above.")


class _Server:
    """A child process that serves."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = False

    @property
    def has_ended(self) -> bool:
        self._ended = self._ended or os.waitpid(self._pid, os.WNOHANG)[0] != 0
        return self._ended

    def wait(self) -> None:
        os.waitpid(self._pid, 0)
        self._ended = True

    def stop(self) -> None:
        """Stop the process gracefully, and kill it after `_STOP_LIMIT_S` or at a second Ctrl-C."""
        if self.has_ended:
            return
        os.kill(self._pid, signal.SIGINT)  # unlike SIGTERM, it skips the drain time for other clients
        deadline = time.monotonic() + _STOP_LIMIT_S
        try:
            while not self.has_ended and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            if not self.has_ended:
                os.kill(self._pid, signal.SIGKILL)
                self.wait()


@contextmanager
def _gateway(settings: Settings, listeners: Listeners) -> Iterator[_Server]:
    """Serve on the listeners in a child process, and stop it when the context ends, even after SIGTERM or SIGHUP."""
    # The log would hide what the demo prints. A copy of .env.example also sets the default level.
    options: dict[str, Any] = {"log_level": "warning"} if settings.log_level == "info" else {}

    def serve() -> int:
        limit_memory_use()
        return serve_on(reload_settings(find_start_problems, **options), options, listeners, lambda *_: None)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    # An interrupt between the fork and the `try` would leave a child process that nothing stops.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server = _Server(fork(serve))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield server
    finally:
        server.stop()


def _wait_until_ready(url: str, server: _Server) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if server.has_ended:
            raise CommandFailed("The gateway stopped during start-up; the reason is printed above.")
        try:
            if httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise CommandFailed(f"The gateway was not ready within {_START_LIMIT_S:.0f} s.")


def _get_token(settings: Settings) -> tuple[_Account, str]:
    """Begin a session of the demo's user, and add the user if necessary; an existing one keeps its password."""
    password = secrets.token_urlsafe(16)
    account = run_with_accounts(settings, lambda accounts: _find_or_add_user(accounts, password))
    if account.user.disabled_at is not None:
        raise CommandFailed(f"The user {_USER} is disabled. Run `atalaya users enable {_USER}`.")

    async def begin_session(engine: AsyncEngine) -> Session:
        scopes = ROLE_SCOPES[account.user.role] & ROLE_SCOPES[Role.CLIENT]
        sessions = SessionStore(engine, settings.auth.session_seconds)
        return await sessions.begin(
            account.user.id, account.user.credentials_version, scopes, record=recording(describe_issued_token)
        )

    session = run_with_engine(settings, begin_session)
    authority = TokenAuthority(open_keyring(settings), token_policy(settings))
    return account, issue_token(authority, account.user, session)


async def _find_or_add_user(accounts: AccountService, password: str) -> _Account:
    try:
        record = recording(describe_user_event("created", role=Role.CLIENT))
        return _Account(await accounts.add(_USER, Role.CLIENT, password, record=record), password)
    except UserExists:
        return _Account(await accounts.get_by_name(_USER), None)


def _predict(url: str, token: str) -> dict[str, Any]:
    response = httpx.post(
        f"{url}/v1/predictions",
        files={"file": (_SAMPLE.name, _SAMPLE.read_bytes())},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,  # no proxy for loopback: it could read the token
    )
    if response.is_error:
        raise CommandFailed(f"The gateway rejected the prediction with {response.status_code}: {response.text}")
    prediction: dict[str, Any] = response.json()
    return prediction


def _print_result(prediction: dict[str, Any]) -> None:
    model = prediction["model"]
    name = f"{model['name']}-v{model['version']}"
    typer.echo(f"\n{_sample_path()}: {prediction['label']}, probability {prediction['confidence']:.4f} ({name})")
    if prediction["abstained"]:
        reason = _ABSTENTIONS[prediction["reason"]]
        typer.echo(f"The model abstains: {reason}. Do not rely on this label.")
    typer.echo()


def _print_next_steps(url: str, account: _Account, token: str, settings: Settings) -> None:
    minutes = format_count(settings.auth.access_token_seconds // 60, "minute")
    typer.echo(f"""Make another prediction; the token is valid for {minutes}:

curl -s {url}/v1/predictions -w '\\n' -F file=@{shlex.quote(str(_sample_path()))} -H 'Authorization: Bearer {token}'
""")
    if account.password is None:
        typer.echo(f"The user {_USER} keeps the password that the first demo printed. To replace it:\n")
        typer.echo(f"{shlex.quote(_program())} users passwd {_USER}\n")
    else:
        typer.echo(f"""Get another token; the password of the user {_USER} is shown only this once:

curl -s {url}/auth/token -w '\\n' -d grant_type=password -d username={_USER} -d password={account.password}
""")


def _format_port(port: int) -> str:
    return "" if port == _DEFAULT_PORT else f" PORT={port}"


def _sample_path() -> Path:
    """Return the path of the sample, relative to the working directory if it is inside."""
    working_directory = Path.cwd()
    return _SAMPLE.relative_to(working_directory) if _SAMPLE.is_relative_to(working_directory) else _SAMPLE


def _program() -> str:
    """Return the command that starts this program in a shell, even if it is not on the PATH."""
    program, working_directory = Path(sys.executable).with_name("atalaya"), Path.cwd()
    return str(program.relative_to(working_directory) if program.is_relative_to(working_directory) else program)
