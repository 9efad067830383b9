"""`atalaya users` and `atalaya token`: the database's own people, without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from api.commands.database import Note, Noting, note, with_engine
from api.commands.output import JsonFlag, PasswordStdin, print_json, print_table, read_password
from api.settings import Settings, load_settings
from auth.accounts.service import AccountService
from auth.accounts.store import NO_CHANGE, User, UserChange
from auth.errors import BadCode, BadCredentials, LastAdmin
from auth.principal import ROLE_SCOPES, Role, select_scopes

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

app = typer.Typer(help="Add, list, change and disable users.", no_args_is_help=True)
T = TypeVar("T")
Force = Annotated[bool, typer.Option("--force", help="Proceed even if no enabled administrator is left.")]


def with_accounts(
    settings: Settings, act: Callable[[AccountService], Awaitable[T]], noting: Noting[T] | None = None
) -> T:
    """Run `act` on the accounts of the settings' database, in an event loop of its own; see with_engine."""
    from auth.accounts.passwords import PasswordHasher
    from auth.accounts.store import UserStore

    async def run(engine: AsyncEngine) -> T:
        with closing(PasswordHasher()) as hasher:
            return await act(AccountService(UserStore(engine), hasher))

    return with_engine(settings, run, noting)


@app.command("add")
def add(
    name: str, role: Annotated[Role, typer.Option()], password_stdin: PasswordStdin = False, as_json: JsonFlag = False
) -> None:
    """Add a user."""
    password = read_password(password_stdin)
    user = with_accounts(
        load_settings(), lambda accounts: accounts.add(name, role, password), noted("created", role=role)
    )
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
def disable(name: str, force: Force = False, as_json: JsonFlag = False) -> None:
    """Prevent a user from logging in, and end the user's sessions."""
    user = _change(name, UserChange(disabled=True), noted("disabled"), force=force)
    _report(user, "disabled", as_json)


@app.command("enable")
def enable(name: str, as_json: JsonFlag = False) -> None:
    """Let a disabled user log in again."""
    user = _change(name, UserChange(disabled=False), noted("enabled"))
    _report(user, "enabled", as_json)


@app.command("role")
def role(name: str, role: Annotated[Role, typer.Option()], force: Force = False, as_json: JsonFlag = False) -> None:
    """Give a user another role, and end the user's sessions."""
    user = _change(name, UserChange(role=role), noted("changed", fields="role", role=role), force=force)
    _report(user, "role set", as_json)


@app.command("totp-reset")
def totp_reset(name: str, as_json: JsonFlag = False) -> None:
    """Remove a user's one-time codes, for a user who has lost them."""
    user = _change(name, UserChange(reset_totp=True), noted("changed", fields="totp"))
    _report(user, "one-time codes removed", as_json)


@app.command("passwd")
def passwd(name: str, password_stdin: PasswordStdin = False) -> None:
    """Set a user's password, and end the user's sessions."""
    password = read_password(password_stdin)
    _change(name, NO_CHANGE, noted("changed", fields="password"), password=password)
    typer.echo(f"{name}: password set.")


def _change(
    name: str, change: UserChange, noting: Noting[User], *, password: str | None = None, force: bool = False
) -> User:
    async def act(accounts: AccountService) -> User:
        user = await accounts.get_by_name(name)
        try:
            return await accounts.change(user.id, change, password=password, allow_last_admin=force)
        except LastAdmin as error:
            raise LastAdmin(f"{error} Use --force to proceed anyway.") from None

    return with_accounts(load_settings(), act, noting)


def token(
    user: Annotated[str, typer.Option(help="The user's name.")],
    password_stdin: PasswordStdin = False,
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces; all of the role's if absent.")] = "",
    totp: Annotated[str, typer.Option(help="The one-time code of a user who has them.")] = "",
) -> None:
    """Print an access token for a user, and nothing else."""
    from api.services.auth import one_time_codes, token_policy
    from api.services.signing_keys import open_keyring
    from auth.accounts.passwords import PasswordHasher
    from auth.accounts.store import UserStore
    from auth.sessions import Session, SessionStore
    from auth.tokens.access import TokenAuthority

    settings = load_settings()
    authority = TokenAuthority(open_keyring(settings), token_policy(settings))
    password = read_password(password_stdin)

    async def log_in(engine: AsyncEngine) -> tuple[User, Session]:
        try:
            with closing(PasswordHasher()) as hasher:
                found = await AccountService(UserStore(engine), hasher).authenticate(user, password)
            if found.totp:
                await one_time_codes(engine, settings).check(found, totp)
        except (BadCredentials, BadCode) as error:
            await note(engine, Note("token", "refused", detail={"code": error.code}))
            raise
        scopes = select_scopes(ROLE_SCOPES[found.role], scope)
        return found, await SessionStore(engine, settings.auth.session_seconds).begin(found.id, scopes)

    found, session = with_engine(settings, log_in, lambda result: Note("token", "issued", f"user:{result[0].id}"))
    issued = authority.issue(
        subject=found.id, name=found.name, role=found.role, scopes=session.scopes, session_id=session.id
    )
    typer.echo(issued.access_token)


def noted(outcome: str, **detail: str) -> Noting[User]:
    """For the record: the user came out of it like this."""
    return lambda user: Note("user", outcome, f"user:{user.id}", detail)


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
