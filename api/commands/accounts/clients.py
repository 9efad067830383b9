"""`atalaya clients`: OAuth clients, which are services that log in as themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from api.commands.database import CommandEvent, recording, run_with_engine
from api.commands.options.confirmation import Yes, confirm
from api.commands.options.credentials import check_name, check_scope
from api.commands.output import JsonFlag, format_time, print_json, print_table
from api.settings import load_settings
from auth.clients import Client, ClientStore
from auth.principal import Scope, format_scopes, select_scopes
from monitoring.chains.timestamps import format_timestamp
from storage.transactions import Record

app = typer.Typer(no_args_is_help=True)
T = TypeVar("T")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(callback=check_name)],
    scope: Annotated[
        str, typer.Option(help="Scopes, separated by spaces.", callback=check_scope)
    ] = Scope.PREDICT.value,
    as_json: JsonFlag = False,
) -> None:
    """Add a client; print its id and its secret, which is shown only once."""
    scopes = select_scopes(frozenset(Scope), scope)
    client, secret = _run_with_clients(lambda clients: clients.add(name, scopes, record=_recording("created")))
    _print_secret(client, secret, as_json)


@app.command("list")
def list_clients(as_json: JsonFlag = False) -> None:
    """List the clients."""
    clients = _run_with_clients(lambda clients: clients.list())
    if as_json:
        print_json([_as_dict(client) for client in clients])
        return
    headers = ("name", "client id", "scopes", "created (UTC)", "disabled (UTC)")
    print_table(headers, [_as_row(client) for client in clients], identifiers=2)


@app.command("disable")
def disable(name: str) -> None:
    """Prevent a client from logging in, and reject its tokens."""
    _run_with_clients(lambda clients: clients.disable(name, record=_recording("disabled")))
    typer.echo(f"{name}: disabled.")


@app.command("enable")
def enable(name: str) -> None:
    """Let a disabled client log in again; its unexpired tokens become valid again, too."""
    _run_with_clients(lambda clients: clients.enable(name, record=_recording("enabled")))
    typer.echo(f"{name}: enabled.")


@app.command("delete")
def delete(name: str, yes: Yes = False) -> None:
    """Remove a client, and reject every token it holds."""
    confirm(f"Delete the client {name}? Its name can be used again, its id and secret cannot.", yes=yes)
    _run_with_clients(lambda clients: clients.delete(name, record=_recording("deleted")))
    typer.echo(f"{name}: deleted.")


@app.command("rotate-secret")
def rotate_secret(name: str, as_json: JsonFlag = False) -> None:
    """Replace a client's secret at once and print the new one, which is shown only once.

    Tokens that the client holds stay valid until they expire. To end them as well, disable the client first.
    """
    client, secret = _run_with_clients(lambda clients: clients.rotate_secret(name, record=_recording("secret_rotated")))
    _print_secret(client, secret, as_json)


def _run_with_clients(action: Callable[[ClientStore], Awaitable[T]]) -> T:
    return run_with_engine(load_settings(), lambda engine: action(ClientStore(engine)))


def _recording(outcome: str) -> Record[Client]:
    return recording(lambda client: CommandEvent("client", outcome, f"client:{client.id}"))


def _print_secret(client: Client, secret: str, as_json: bool) -> None:
    if as_json:
        print_json({**_as_dict(client), "client_secret": secret})
        return
    typer.echo(f"client_id      {client.id}\nclient_secret  {secret}")


def _as_row(client: Client) -> tuple[str, ...]:
    disabled = format_time(client.disabled_at)
    return client.name, client.id, format_scopes(client.scopes), format_time(client.created_at), disabled


def _as_dict(client: Client) -> dict[str, str | None]:
    return {
        "client_id": client.id,
        "name": client.name,
        "scope": format_scopes(client.scopes),
        "created_at": format_timestamp(client.created_at),
        "disabled_at": format_timestamp(client.disabled_at) if client.disabled_at else None,
    }
