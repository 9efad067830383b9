"""`atalaya clients`: OAuth clients, which are services that log in as themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from api.commands.database import CommandEvent, DescribeEvent, run_with_engine
from api.commands.output import JsonFlag, print_json, print_table
from api.settings import load_settings
from auth.clients import Client, ClientStore
from auth.principal import Scope, format_scopes, select_scopes

app = typer.Typer(no_args_is_help=True)
T = TypeVar("T")


@app.command("add")
def add(
    name: str,
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = Scope.PREDICT.value,
    as_json: JsonFlag = False,
) -> None:
    """Add a client; print its id and its secret, which is shown only once."""
    scopes = select_scopes(frozenset(Scope), scope)
    client, secret = _run_with_clients(
        lambda clients: clients.add(name, scopes), lambda added: _describe_event(added[0], "created")
    )
    if as_json:
        print_json({**_as_dict(client), "client_secret": secret})
        return
    typer.echo(f"client_id      {client.id}\nclient_secret  {secret}")


@app.command("list")
def list_clients(as_json: JsonFlag = False) -> None:
    """List the clients."""
    clients = [_as_dict(client) for client in _run_with_clients(lambda clients: clients.list())]
    if as_json:
        print_json(clients)
        return
    fields = ("name", "client_id", "scope", "created_at", "disabled_at")
    print_table(fields, [tuple(client[field] or "" for field in fields) for client in clients])


@app.command("disable")
def disable(name: str) -> None:
    """Reject a client and every token it holds."""
    _run_with_clients(lambda clients: clients.disable(name), lambda client: _describe_event(client, "disabled"))
    typer.echo(f"{name}: disabled.")


def _run_with_clients(
    action: Callable[[ClientStore], Awaitable[T]], describe_event: DescribeEvent[T] | None = None
) -> T:
    return run_with_engine(load_settings(), lambda engine: action(ClientStore(engine)), describe_event)


def _describe_event(client: Client, outcome: str) -> CommandEvent:
    return CommandEvent("client", outcome, f"client:{client.id}")


def _as_dict(client: Client) -> dict[str, str | None]:
    return {
        "client_id": client.id,
        "name": client.name,
        "scope": format_scopes(client.scopes),
        "created_at": client.created_at.isoformat(),
        "disabled_at": client.disabled_at.isoformat() if client.disabled_at else None,
    }
