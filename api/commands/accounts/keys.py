"""`atalaya keys`: the API keys of users, and the gateway's signing key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.commands.database import CommandEvent, DescribeEvent, recording, run_with_engine
from api.commands.options.confirmation import confirm
from api.commands.options.credentials import check_scope
from api.commands.output import JsonFlag, print_json, print_table
from api.commands.secrets import check_rotation, make_rotated_keys, rotate_signing_key
from api.schemas.fields import describe_invalid
from api.schemas.keys import (
    DEFAULT_DAYS,
    DEFAULT_OVERLAP_HOURS,
    MAX_DAYS,
    MAX_OVERLAP_HOURS,
    KeyResponse,
    KeyWithSecret,
    NewKey,
    Revocation,
    Rotation,
)
from api.settings import Settings, load_settings
from auth.accounts.store import User, UserStore
from auth.api_keys.store import ApiKey, KeyStore
from auth.errors import UserNotFound
from auth.principal import ROLE_SCOPES, Scope, select_scopes

app = typer.Typer(no_args_is_help=True)
Body = TypeVar("Body", bound=BaseModel)
Days = typer.Option(help=f"Days until it expires, at most {MAX_DAYS}.")


@app.command("create")
def create(  # noqa: PLR0913  (each is an option)
    *,
    user: Annotated[str, typer.Option(help="The owner's name.")],
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[
        str, typer.Option(help="Scopes of the owner, separated by spaces.", callback=check_scope)
    ] = Scope.PREDICT.value,
    expires_days: Annotated[int, Days] = DEFAULT_DAYS,
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="Accept the key only from this address or network. Can be repeated."),
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Rate limit, for example 60/minute.")] = None,
    monthly_requests: Annotated[int | None, typer.Option(help="Monthly quota of requests.")] = None,
    monthly_megapixels: Annotated[int | None, typer.Option(help="Monthly quota of megapixels.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create an API key and print it; it is shown only once."""

    async def create_key(engine: AsyncEngine) -> tuple[ApiKey, str]:
        owner = await _find_user(engine, user)
        body = _validate(
            NewKey,
            name=name,
            scopes=sorted(select_scopes(ROLE_SCOPES[owner.role], scope)),
            expires_days=expires_days,
            addresses=address or [],
            rate=rate,
            monthly_requests=monthly_requests,
            monthly_megapixels=monthly_megapixels,
        )
        return await KeyStore(engine).create(owner.id, body.terms(), record=recording(_describe_event("created")))

    _print_secret(*run_with_engine(load_settings(), create_key), as_json)


@app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="The owner's name. Default: the keys of all users.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List API keys, without their secrets."""

    async def find_keys(engine: AsyncEngine) -> list[KeyResponse]:
        owner = None if user is None else (await _find_user(engine, user)).id
        return [KeyResponse.of(key) for key in await KeyStore(engine).list(owner)]

    keys = run_with_engine(load_settings(), find_keys)
    if as_json:
        print_json([key.model_dump(mode="json") for key in keys])
        return
    headers = ("id", "name", "user", "scopes", "last used", "ends")
    if any(key.parent_id for key in keys):
        print_table((*headers, "created by"), [(*_as_row(key), key.parent_id or "") for key in keys])
    else:
        print_table(headers, [_as_row(key) for key in keys])


@app.command("rotate")
def rotate(
    key_id: Annotated[
        str | None, typer.Argument(help="The id of an API key. Default: the gateway's signing key.")
    ] = None,
    overlap_hours: Annotated[
        int | None,
        typer.Option(
            help=f"Hours for which an API key's old secret stays valid, at most {MAX_OVERLAP_HOURS}. "
            f"Default: {DEFAULT_OVERLAP_HOURS}."
        ),
    ] = None,
    expires_days: Annotated[int | None, Days] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Rotate the signing key without asking.")] = False,
    show: Annotated[
        bool,
        typer.Option(
            "--print", help="Only print the signing keys with a new one added, so that you can store them elsewhere."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Replace the secret of an API key, or the gateway's signing key."""
    if key_id is None:
        if overlap_hours is not None or expires_days is not None:
            raise typer.BadParameter("--overlap-hours and --expires-days are for API keys. Give the id of one.")
        _rotate_signing_key(load_settings(), show, yes, as_json)
        return
    if not key_id.strip():
        raise typer.BadParameter("The id is empty. Give the id of an API key, or none to rotate the signing key.")
    if show or yes:
        raise typer.BadParameter("--print and --yes are for the signing key. Leave them out, or leave out the id.")
    hours = DEFAULT_OVERLAP_HOURS if overlap_hours is None else overlap_hours
    body = _validate(Rotation, overlap_hours=hours, expires_days=expires_days)
    record = recording(_describe_event("rotated"))
    rotated = run_with_engine(
        load_settings(), lambda engine: KeyStore(engine).rotate(key_id, body.overlap, body.expires_at, record=record)
    )
    _print_secret(*rotated, as_json)


def _rotate_signing_key(settings: Settings, show: bool, yes: bool, as_json: bool) -> None:
    if show:
        keys = make_rotated_keys(settings)
        print_json({"signing_keys": keys}) if as_json else typer.echo(keys, nl=False)
        return
    if not yes:
        check_rotation(settings)
        confirm("Without an id this adds a new signing key for access tokens. Continue?", yes=yes)
    next_step = rotate_signing_key(settings)
    print_json({"done": next_step}) if as_json else typer.echo(next_step)


@app.command("revoke")
def revoke(
    key_id: str,
    leaked: Annotated[bool, typer.Option("--leaked", help="The key may have leaked. Implies --cascade.")] = False,
    cascade: Annotated[
        bool | None,
        typer.Option("--cascade/--no-cascade", help="Also revoke the keys created with this key, recursively."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Revoke an API key permanently; running gateways reject it within a second."""
    revocation = Revocation(leaked=leaked, cascade=cascade)

    async def record(connection: AsyncConnection, revoked: Sequence[ApiKey]) -> None:
        for each in revoked:
            detail = revocation.describe(revoked[0], each)
            await recording(_describe_event("revoked", **detail))(connection, each)

    key, *others = run_with_engine(
        load_settings(),
        lambda engine: KeyStore(engine).revoke(key_id, cascade=revocation.includes_descendants, record=record),
    )
    if as_json:
        also = [each.id for each in others]
        print_json({**KeyResponse.of(key).model_dump(mode="json"), "also_revoked": also})
        return
    for each in (key, *others):
        typer.echo(f"{each.id} ({each.terms.name}): revoked.")


def _describe_event(outcome: str, **detail: str) -> DescribeEvent[ApiKey]:
    return lambda key: CommandEvent("key", outcome, f"key:{key.id}", detail)


async def _find_user(engine: AsyncEngine, name: str) -> User:
    """Raises UserNotFound."""
    user_and_hash = await UserStore(engine).find(name)
    if user_and_hash is None:
        raise UserNotFound(f"There is no user {name}. `atalaya users list` prints the names.")
    return user_and_hash[0]


def _validate(kind: type[Body], **options: Any) -> Body:
    """Validate options as the route validates its body. Raises BadParameter, which names the option."""
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        option = str(first["loc"][0]).replace("addresses", "address").replace("_", "-")
        raise typer.BadParameter(f"--{option}: {describe_invalid(first)}.") from None


def _print_secret(key: ApiKey, text: str, as_json: bool) -> None:
    """Print nothing but the key on standard output, so that a script can store it."""
    if as_json:
        print_json(KeyWithSecret.of_secret(key, text).model_dump(mode="json"))
        return
    expiry = f"{key.terms.expires_at:%Y-%m-%d}"
    typer.echo(f"{key.id} ({key.terms.name}) expires on {expiry}. It is shown only once:", err=True)
    typer.echo(text)


def _as_row(key: KeyResponse) -> tuple[str, ...]:
    used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else ""
    ends = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}"
    return key.id, key.name, key.user, " ".join(key.scopes), used, ends
