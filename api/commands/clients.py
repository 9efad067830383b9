"""`atalaya clients`: services that log in as themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from api.commands.database import Note, Noting, with_engine
from api.commands.output import JsonFlag, print_json, print_table
from api.settings import load_settings
from auth.principal import Scope, format_scopes, select_scopes

if TYPE_CHECKING:
    from auth.clients import Client, ClientStore

app = typer.Typer(help="Add, list and disable OAuth clients.", no_args_is_help=True)
T = TypeVar("T")


@app.command("add")
def add(
    name: str,
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = Scope.PREDICT.value,
    as_json: JsonFlag = False,
) -> None:
    """Add a client; print its id and its secret, which is shown this once."""
    scopes = select_scopes(frozenset(Scope), scope)
    client, secret = _with_clients(
        lambda clients: clients.add(name, scopes), lambda made: Note("client", "created", f"client:{made[0].id}")
    )
    if as_json:
        print_json({**_as_dict(client), "client_secret": secret})
        return
    typer.echo(f"client_id      {client.id}\nclient_secret  {secret}")


@app.command("list")
def list_clients(as_json: JsonFlag = False) -> None:
    """List the clients."""
    found = [_as_dict(client) for client in _with_clients(lambda clients: clients.list())]
    if as_json:
        print_json(found)
        return
    fields = ("name", "client_id", "scope", "created_at", "disabled_at")
    print_table(fields, [tuple(client[field] or "" for field in fields) for client in found])


@app.command("disable")
def disable(name: str) -> None:
    """Refuse a client and every token it holds."""
    _with_clients(
        lambda clients: clients.disable(name), lambda client: Note("client", "disabled", f"client:{client.id}")
    )
    typer.echo(f"{name}: disabled.")


def _with_clients(act: Callable[[ClientStore], Awaitable[T]], noting: Noting[T] | None = None) -> T:
    from auth.clients import ClientStore

    return with_engine(load_settings(), lambda engine: act(ClientStore(engine)), noting)


def _as_dict(client: Client) -> dict[str, str | None]:
    return {
        "client_id": client.id,
        "name": client.name,
        "scope": format_scopes(client.scopes),
        "created_at": client.created_at.isoformat(),
        "disabled_at": client.disabled_at.isoformat() if client.disabled_at else None,
    }
