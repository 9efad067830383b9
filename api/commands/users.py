"""`atalaya users` and `atalaya token`: the database's own people, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import typer

from api.commands.output import JsonFlag, PasswordStdin, print_json, print_table, read_password
from api.settings import Settings, load_settings
from auth.accounts import Accounts
from auth.principal import Role, granted_scopes
from auth.users import User

app = typer.Typer(help="Add, list and disable users.", no_args_is_help=True)
T = TypeVar("T")


@asynccontextmanager
async def open_accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """The accounts of the settings' database, migrated first."""
    from auth.database import migrate, open_engine
    from auth.passwords import PasswordHasher
    from auth.users import UserStore

    engine = open_engine(settings.database_url.get_secret_value())
    try:
        await migrate(engine)
        yield Accounts(UserStore(engine), PasswordHasher())
    finally:
        await engine.dispose()


def with_accounts(settings: Settings, act: Callable[[Accounts], Awaitable[T]]) -> T:
    """Run `act` on the accounts, in an event loop of its own."""

    async def run() -> T:
        async with open_accounts(settings) as accounts:
            return await act(accounts)

    return asyncio.run(run())


@app.command("add")
def add(
    name: str, role: Annotated[Role, typer.Option()], password_stdin: PasswordStdin = False, as_json: JsonFlag = False
) -> None:
    """Add a user."""
    password = read_password(password_stdin)
    user = with_accounts(load_settings(), lambda accounts: accounts.add(name, role, password))
    _report(user, "added", as_json)


@app.command("list")
def list_users(as_json: JsonFlag = False) -> None:
    """List the users."""
    users = with_accounts(load_settings(), lambda accounts: accounts.list())
    if as_json:
        print_json([_as_dict(user) for user in users])
        return
    print_table(("name", "role", "created", "disabled"), [tuple(_row(user)) for user in users])


@app.command("disable")
def disable(name: str, as_json: JsonFlag = False) -> None:
    """Refuse a user's further log-ins."""
    _report(with_accounts(load_settings(), lambda accounts: accounts.disable(name)), "disabled", as_json)


@app.command("passwd")
def passwd(name: str, password_stdin: PasswordStdin = False) -> None:
    """Set a user's password."""
    password = read_password(password_stdin)
    with_accounts(load_settings(), lambda accounts: accounts.set_password(name, password))
    typer.echo(f"{name}: password set.")


def token(
    user: Annotated[str, typer.Option(help="The user's name.")],
    password_stdin: PasswordStdin = False,
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces; all of the role's if absent.")] = "",
) -> None:
    """Print an access token for a user, and nothing else."""
    from api.lifespan import token_authority

    settings = load_settings()
    authority = token_authority(settings)
    password = read_password(password_stdin)
    found = with_accounts(settings, lambda accounts: accounts.authenticate(user, password))
    scopes = granted_scopes(found.role, scope)
    typer.echo(authority.issue(subject=found.id, name=found.name, role=found.role, scopes=scopes).access_token)


def _report(user: User, done: str, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(user))
    else:
        typer.echo(f"{user.name} ({user.role}): {done}.")


def _as_dict(user: User) -> dict[str, str | None]:
    disabled_at = user.disabled_at.isoformat() if user.disabled_at else None
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "created_at": user.created_at.isoformat(),
        "disabled_at": disabled_at,
    }


def _row(user: User) -> list[str]:
    fields = _as_dict(user)
    return [str(fields[key] or "") for key in ("name", "role", "created_at", "disabled_at")]
