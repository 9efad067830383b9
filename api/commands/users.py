"""`atalaya users` and `atalaya token`: the database's own people, without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from api.commands.database import with_engine
from api.commands.output import JsonFlag, PasswordStdin, print_json, print_table, read_password
from api.settings import Settings, load_settings
from auth.accounts import Accounts
from auth.principal import ROLE_SCOPES, Role, granted_scopes
from auth.users import User

app = typer.Typer(help="Add, list and disable users.", no_args_is_help=True)
T = TypeVar("T")


def with_accounts(settings: Settings, act: Callable[[Accounts], Awaitable[T]]) -> T:
    """Run `act` on the accounts of the settings' database, in an event loop of its own."""
    from auth.passwords import PasswordHasher
    from auth.users import UserStore

    return with_engine(settings, lambda engine: act(Accounts(UserStore(engine), PasswordHasher())))


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
    from api.lifespan import open_keyring, token_policy
    from auth.sessions import SessionStore
    from auth.tokens import TokenAuthority

    settings = load_settings()
    authority = TokenAuthority(open_keyring(settings), token_policy(settings))
    password = read_password(password_stdin)
    found = with_accounts(settings, lambda accounts: accounts.authenticate(user, password))
    scopes = granted_scopes(ROLE_SCOPES[found.role], scope)
    seconds = settings.auth.session_seconds
    session = with_engine(settings, lambda engine: SessionStore(engine, seconds).begin(found.id, scopes))
    issued = authority.issue(subject=found.id, name=found.name, role=found.role, scopes=scopes, session_id=session.id)
    typer.echo(issued.access_token)


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
