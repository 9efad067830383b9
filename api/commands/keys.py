"""`atalaya keys`: the users' API keys, and the gateway's own signing key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from api.commands.database import Note, Noting, with_engine
from api.commands.output import JsonFlag, print_json, print_table
from api.commands.secrets import rotate_signing_key
from api.schemas.keys import (
    DEFAULT_DAYS,
    DEFAULT_OVERLAP_HOURS,
    MAX_DAYS,
    MAX_OVERLAP_HOURS,
    KeyResponse,
    KeyWithSecret,
    NewKey,
    Rotation,
)
from api.settings import load_settings
from auth.principal import ROLE_SCOPES, Scope, select_scopes

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from auth.accounts.store import User
    from auth.api_keys.store import ApiKey, KeyStore

app = typer.Typer(help="Make, list, rotate and revoke API keys; rotate the signing key.", no_args_is_help=True)
T = TypeVar("T")
Asked = TypeVar("Asked", bound=BaseModel)
Days = typer.Option(help=f"Days until it expires, {MAX_DAYS} at most.")


@app.command("create")
def create(  # noqa: PLR0913  (each is an option)
    *,
    user: Annotated[str, typer.Option(help="The owner's name.")],
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[str, typer.Option(help="Scopes of the owner, separated by spaces.")] = Scope.PREDICT.value,
    expires_days: Annotated[int, Days] = DEFAULT_DAYS,
    address: Annotated[list[str] | None, typer.Option(help="An address or network to use it from; repeatable.")] = None,
    rate: Annotated[str | None, typer.Option(help="For example 60/minute.")] = None,
    monthly_requests: Annotated[int | None, typer.Option(help="Requests in a month.")] = None,
    monthly_megapixels: Annotated[int | None, typer.Option(help="Megapixels in a month.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a new API key, which is shown this once."""

    async def make(engine: AsyncEngine) -> tuple[ApiKey, str]:
        from auth.api_keys.store import KeyStore

        owner = await _user(engine, user)
        asked = _checked(
            NewKey,
            name=name,
            scopes=sorted(select_scopes(ROLE_SCOPES[owner.role], scope)),
            expires_days=expires_days,
            addresses=address or [],
            rate=rate,
            monthly_requests=monthly_requests,
            monthly_megapixels=monthly_megapixels,
        )
        return await KeyStore(engine).create(owner.id, asked.terms())

    _show(*with_engine(load_settings(), make, lambda made: _noted(made[0], "created")), as_json)


@app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="The owner's name; everybody's keys if absent.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List API keys, without their secrets."""

    async def find(engine: AsyncEngine) -> list[KeyResponse]:
        from auth.api_keys.store import KeyStore

        owner = None if user is None else (await _user(engine, user)).id
        return [KeyResponse.of(key) for key in await KeyStore(engine).list(owner)]

    found = with_engine(load_settings(), find)
    if as_json:
        print_json([key.model_dump(mode="json") for key in found])
        return
    print_table(("id", "name", "user", "scopes", "last used", "ends"), [_row(key) for key in found])


@app.command("rotate")
def rotate(
    key_id: Annotated[str | None, typer.Argument(help="An API key; the gateway's signing key if absent.")] = None,
    overlap_hours: Annotated[
        int, typer.Option(help=f"How long an API key's old secret still counts, {MAX_OVERLAP_HOURS} at most.")
    ] = DEFAULT_OVERLAP_HOURS,
    expires_days: Annotated[int | None, Days] = None,
    as_json: JsonFlag = False,
) -> None:
    """Give an API key a new secret, or the gateway a new signing key."""
    settings = load_settings()
    if key_id is None:
        done = rotate_signing_key(settings)
        print_json({"done": done}) if as_json else typer.echo(done)
        return
    asked = _checked(Rotation, overlap_hours=overlap_hours, expires_days=expires_days)
    rotated = _with_keys(
        lambda keys: keys.rotate(key_id, asked.overlap, asked.expires_at), lambda made: _noted(made[0], "rotated")
    )
    _show(*rotated, as_json)


@app.command("revoke")
def revoke(key_id: str, as_json: JsonFlag = False) -> None:
    """End an API key for good; running gateways refuse it within a second."""
    key = _with_keys(lambda keys: keys.revoke(key_id), lambda key: _noted(key, "revoked"))
    if as_json:
        print_json(KeyResponse.of(key).model_dump(mode="json"))
    else:
        typer.echo(f"{key.id} ({key.terms.name}): revoked.")


def _with_keys(act: Callable[[KeyStore], Awaitable[T]], noting: Noting[T]) -> T:
    from auth.api_keys.store import KeyStore

    return with_engine(load_settings(), lambda engine: act(KeyStore(engine)), noting)


def _noted(key: ApiKey, outcome: str) -> Note:
    """For the record of access."""
    return Note("key", outcome, f"key:{key.id}")


async def _user(engine: AsyncEngine, name: str) -> User:
    """Raises UserNotFound."""
    from auth.accounts.store import UserStore
    from auth.errors import UserNotFound

    found = await UserStore(engine).find(name)
    if found is None:
        raise UserNotFound(f"There is no user {name}. List the users to see their names.")
    return found[0]


def _checked(kind: type[Asked], **options: Any) -> Asked:
    """Raises BadParameter, naming the option."""
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        option = str(first["loc"][0]).replace("addresses", "address").replace("_", "-")
        raise typer.BadParameter(f"--{option}: {first['msg']}.") from None


def _show(key: ApiKey, text: str, as_json: bool) -> None:
    """The key alone on standard output, so that a script can keep it."""
    if as_json:
        print_json(KeyWithSecret.of_secret(key, text).model_dump(mode="json"))
        return
    typer.echo(f"{key.id} ({key.terms.name}) ends {key.terms.expires_at:%Y-%m-%d}. It is shown this once:", err=True)
    typer.echo(text)


def _row(key: KeyResponse) -> tuple[str, ...]:
    used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else ""
    ends = "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}"
    return key.id, key.name, key.user, " ".join(key.scopes), used, ends
