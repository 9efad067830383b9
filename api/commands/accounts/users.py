"""`atalaya users` and `atalaya token`: manage users in the database, and log them in, without a gateway."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from api.commands.accounts.images import set_images
from api.commands.accounts.subjects import bar, list_barred, unbar
from api.commands.database import (
    CommandEvent,
    DescribeEvent,
    command_actor,
    record_event,
    recording,
    run_with_accounts,
    run_with_engine,
)
from api.commands.gateway.issuer import find_issuer
from api.commands.ledger.upkeep import count_predictions, erase_predictions
from api.commands.options.confirmation import Yes, confirm
from api.commands.options.credentials import check_scope
from api.commands.output import (
    JsonFlag,
    PasswordStdin,
    format_count,
    format_entries,
    format_erased_images,
    format_time,
    print_json,
    print_table,
    read_password,
)
from api.errors import CommandFailed
from api.services.auth import one_time_codes, token_policy
from api.services.personal_data.archive import erase_images, open_image_archive
from api.services.personal_data.erasure import IN_FLIGHT_S
from api.services.secrets.signing_keys import open_keyring
from api.settings import Settings, load_settings
from auth.accounts.deletion import AccountDeletion
from auth.accounts.erasures import PendingErasures
from auth.accounts.passwords import PasswordHasher
from auth.accounts.service import AccountService
from auth.accounts.store import NO_CHANGE, User, UserChange, UserStore, is_user_id
from auth.errors import BadCode, BadCredentials, LastAdmin, UserNotFound
from auth.principal import ROLE_SCOPES, Role, select_scopes
from auth.sessions import Session, SessionStore
from auth.tokens.access import TokenAuthority
from monitoring.audit.store import AuditStore
from monitoring.chains.timestamps import format_timestamp
from monitoring.errors import MonitoringError
from storage.images.errors import ImageStoreError

app = typer.Typer(no_args_is_help=True)
T = TypeVar("T")
Force = Annotated[bool, typer.Option("--force", help="Proceed even if no enabled administrator is left.")]


app.command("images")(set_images)
app.command("bar")(bar)
app.command("unbar")(unbar)
app.command("barred")(list_barred)


@app.command("add")
def add(
    name: str, role: Annotated[Role, typer.Option()], password_stdin: PasswordStdin = False, as_json: JsonFlag = False
) -> None:
    """Add a user."""
    password = read_password(password_stdin)
    record = recording(describe_user_event("created", role=role))
    user = run_with_accounts(load_settings(), lambda accounts: accounts.add(name, role, password, record=record))
    _print_user(user, "added", as_json)


@app.command("list")
def list_users(
    ids: Annotated[bool, typer.Option("--ids", help="Also print the users' ids.")] = False, as_json: JsonFlag = False
) -> None:
    """List the users."""
    users = run_with_accounts(load_settings(), lambda accounts: accounts.list())
    if as_json:
        print_json([_as_dict(user) for user in users])
        return
    headers = ("name", *(("id",) if ids else ()), "role", "created (UTC)", "disabled (UTC)")
    rows = [(user.name, *((user.id,) if ids else ()), *_describe(user)) for user in users]
    print_table(headers, rows, identifiers=2 if ids else 1)


@app.command("disable")
def disable(name: str, force: Force = False, as_json: JsonFlag = False) -> None:
    """Prevent a user from logging in, and end the user's sessions."""
    user = _change_user(name, UserChange(disabled=True), describe_user_event("disabled"), force=force)
    _print_user(user, "disabled", as_json)


@app.command("enable")
def enable(name: str, as_json: JsonFlag = False) -> None:
    """Let a disabled user log in again."""
    user = _change_user(name, UserChange(disabled=False), describe_user_event("enabled"))
    _print_user(user, "enabled", as_json)


@app.command("role")
def role(name: str, role: Annotated[Role, typer.Option()], force: Force = False, as_json: JsonFlag = False) -> None:
    """Give a user another role, and end the user's sessions."""
    describe_event = describe_user_event("changed", fields="role", role=role)
    user = _change_user(name, UserChange(role=role), describe_event, force=force)
    _print_user(user, "role set", as_json)


@app.command("totp-reset")
def totp_reset(name: str, as_json: JsonFlag = False) -> None:
    """Remove a user's one-time codes, for a user who has lost them."""
    user = _change_user(name, UserChange(reset_totp=True), describe_user_event("changed", fields="totp"))
    _print_user(user, "one-time codes are off", as_json)


@app.command("passwd")
def passwd(name: str, password_stdin: PasswordStdin = False) -> None:
    """Set a user's password, and end the user's sessions."""
    password = read_password(password_stdin)
    _change_user(name, NO_CHANGE, describe_user_event("changed", fields="password"), password=password)
    typer.echo(f"{name}: password set.")


@app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(help="The user's name; or the id of a deleted user, to erase what is left.")],
    yes: Yes = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete a user, and erase the user's images and what the ledger and the audit log hold about the user."""
    settings = load_settings()
    archive = open_image_archive(settings)  # first: an invalid store must fail before the deletion
    user = run_with_accounts(settings, lambda accounts: _find_unless_deleted(accounts, name))
    user_id = user.id if user else name
    predictions = count_predictions(settings, user_id)
    confirm(f"Delete {name} and erase {format_count(predictions, 'prediction')} permanently?", yes=yes)
    if user is not None:
        _delete_account(settings, user, force=force)
        time.sleep(IN_FLIGHT_S)
    began_at = datetime.now(UTC)
    try:
        # The audit log first: it can succeed with a damaged ledger.
        entries = run_with_engine(settings, lambda engine: AuditStore(engine).erase(user_id, command_actor()))
        predictions = erase_predictions(settings, user_id)
        run_with_engine(settings, lambda engine: PendingErasures(engine).complete(user_id, began_at))
        images = erase_images(archive, user_id)
    except (MonitoringError, ImageStoreError) as error:
        retry = f"Then run `atalaya users delete {user_id}` to erase the rest."
        raise CommandFailed(f"{name} was deleted, but not all records were erased. {error} {retry}") from error
    if as_json:
        print_json(
            {
                "id": user_id,
                "erased_predictions": predictions,
                "erased_audit_entries": entries,
                "erased_images": images,
            }
        )
    else:
        records = f"{format_count(predictions, 'prediction')}, {format_entries(entries, 'audit')}"
        typer.echo(f"{name}: deleted; erased {records} and {format_erased_images(images)}.")


def token(
    user: Annotated[str, typer.Option(help="The user's name.")],
    password_stdin: PasswordStdin = False,
    scope: Annotated[
        str | None,
        typer.Option(help="Scopes, separated by spaces. Default: all scopes of the user's role.", callback=check_scope),
    ] = None,
    totp: Annotated[str, typer.Option(help="The one-time code, if the user has enabled one-time codes.")] = "",
    url: Annotated[
        str | None,
        typer.Option(help="URL of the gateway that the token is for. Default: the one running in this installation."),
    ] = None,
) -> None:
    """Log in as a user and print only the access token."""
    settings = load_settings()
    keyring = open_keyring(settings)
    policy = replace(token_policy(settings), issuer=find_issuer(settings, keyring, url))
    password = read_password(password_stdin)

    async def log_in(engine: AsyncEngine) -> tuple[User, Session]:
        try:
            with closing(PasswordHasher()) as hasher:
                account = await AccountService(UserStore(engine), hasher).authenticate(user, password)
            if account.totp:
                await one_time_codes(engine, settings).check(account, totp)
            scopes = select_scopes(ROLE_SCOPES[account.role], scope or "")
            sessions = SessionStore(engine, settings.auth.session_seconds)
            record = recording(describe_issued_token)
            return account, await sessions.begin(account.id, account.credentials_version, scopes, record=record)
        except (BadCredentials, BadCode) as error:
            await record_event(engine, CommandEvent("token", "refused", detail={"code": error.code}))
            raise

    account, session = run_with_engine(settings, log_in)
    typer.echo(issue_token(TokenAuthority(keyring, policy), account, session))


def issue_token(authority: TokenAuthority, user: User, session: Session) -> str:
    """Return an access token for the user's session."""
    issued = authority.issue(
        subject=user.id, name=user.name, role=user.role, scopes=session.scopes, session_id=session.id
    )
    return issued.access_token


def describe_user_event(outcome: str, **detail: str) -> DescribeEvent[User]:
    """Return a function that builds the audit log's event for a user."""
    return lambda user: CommandEvent("user", outcome, f"user:{user.id}", detail)


def describe_issued_token(session: Session) -> CommandEvent:
    """Build the audit log's event for the token that begins a session."""
    return CommandEvent("token", "issued", f"user:{session.user_id}")


async def _find_unless_deleted(accounts: AccountService, name: str) -> User | None:
    """Return the user with that name, or None for the id of a deleted user. Raises BadUserName, UserNotFound."""
    try:
        return await accounts.get_by_name(name)
    except UserNotFound:
        if not is_user_id(name):
            raise
        return None


def _delete_account(settings: Settings, user: User, *, force: bool) -> None:
    record = recording(describe_user_event("deleted", role=user.role))

    async def delete_account(engine: AsyncEngine) -> User:
        try:
            return await AccountDeletion(engine).delete(user.id, command_actor(), allow_last_admin=force, record=record)
        except LastAdmin as error:
            raise LastAdmin(f"{error} Use --force to proceed anyway.") from None

    run_with_engine(settings, delete_account)


def _change_user(
    name: str,
    change: UserChange,
    describe_event: DescribeEvent[User],
    *,
    password: str | None = None,
    force: bool = False,
) -> User:
    async def change_user(accounts: AccountService) -> User:
        user = await accounts.get_by_name(name)
        try:
            return await accounts.change(
                user.id, change, password=password, allow_last_admin=force, record=recording(describe_event)
            )
        except LastAdmin as error:
            raise LastAdmin(f"{error} Use --force to proceed anyway.") from None

    return run_with_accounts(load_settings(), change_user)


def _print_user(user: User, change: str, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(user))
    else:
        typer.echo(f"{user.name} ({user.role}): {change}.")


def _as_dict(user: User) -> dict[str, str | bool | None]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "keep_images": user.keep_images,
        "created_at": format_timestamp(user.created_at),
        "disabled_at": format_timestamp(user.disabled_at) if user.disabled_at else None,
    }


def _describe(user: User) -> tuple[str, str, str]:
    return user.role, format_time(user.created_at), format_time(user.disabled_at)
