"""OAuth clients: services that authenticate with an id and a secret (RFC 6749, sections 2.3 and 4.4)."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec import Struct
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.changes import announce
from auth.errors import ClientExists, ClientNotFound, InvalidClient
from auth.principal import Scope, format_scopes, parse_scopes
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME
from auth.tables import clients
from auth.tokens.digests import hash_text
from storage.transactions import Record, reading, record_nothing, writing

SECRET_PREFIX = "ats_"  # noqa: S105  (how each secret begins)

# Databases reject some characters with an error, so text that cannot be an id is never looked up.
_ID = re.compile(r"[0-9a-f-]{36}")


class Client(Struct, frozen=True):
    """An OAuth client without its secret. Times are UTC; a client with `disabled_at` cannot log in."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    disabled_at: datetime | None


class ClientStore:
    """Stores OAuth clients. Every method raises DatabaseUnavailable.

    Methods that change something call `record` in the same transaction.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(
        self, name: str, scopes: Iterable[Scope], *, record: Record[Client] = record_nothing
    ) -> tuple[Client, str]:
        """Add a client; return it and its secret, which is not stored. Raises ClientExists."""
        client = Client(str(uuid4()), name, frozenset(scopes), datetime.now(UTC), None)
        secret = _generate_secret()
        row = {"id": client.id, "name": name, "scopes": format_scopes(client.scopes), "created_at": client.created_at}
        try:
            async with writing(self._engine) as connection:
                await connection.execute(insert(clients).values(**row, secret_digest=hash_text(secret)))
                await record(connection, client)
        except IntegrityError:
            raise ClientExists(f"There is already a client {name}. Choose another name.") from None
        return client, secret

    async def authenticate(self, client_id: str, secret: str) -> Client:
        """Return the client. Raises InvalidClient, with the same message for every reason."""
        row = await self._find(client_id) if _ID.fullmatch(client_id) else None
        expected = row.secret_digest if row else hash_text("")
        if not hmac.compare_digest(expected, hash_text(secret)) or row is None or row.disabled_at is not None:
            raise InvalidClient
        return _client(row)

    async def list(self) -> Sequence[Client]:
        """Return all clients, by name."""
        async with reading(self._engine) as connection:
            return [_client(row) for row in await connection.execute(select(clients).order_by(clients.c.name))]

    async def _find(self, client_id: str) -> Row[Any] | None:
        async with reading(self._engine) as connection:
            return (await connection.execute(select(clients).where(clients.c.id == client_id))).one_or_none()

    async def disable(self, name: str, *, record: Record[Client] = record_nothing) -> Client:
        """Disable the client and revoke its tokens. Raises ClientNotFound."""
        return await self._update(name, record, disabled_at=func.coalesce(clients.c.disabled_at, datetime.now(UTC)))

    async def enable(self, name: str, *, record: Record[Client] = record_nothing) -> Client:
        """Let a disabled client log in again; tokens that it still holds are valid again. Raises ClientNotFound."""
        return await self._update(name, record, disabled_at=None)

    async def rotate_secret(self, name: str, *, record: Record[Client] = record_nothing) -> tuple[Client, str]:
        """Replace the secret; return the client and the new secret. Its tokens stay valid. Raises ClientNotFound."""
        secret = _generate_secret()
        return await self._update(name, record, secret_digest=hash_text(secret)), secret

    async def delete(self, name: str, *, record: Record[Client] = record_nothing) -> Client:
        """Remove the client and revoke its tokens. Raises ClientNotFound."""
        async with writing(self._engine) as connection:
            statement = delete(clients).where(clients.c.name == name).returning(clients)
            client = _client((await connection.execute(statement)).one_or_none(), name)
            await _announce(connection, client, revoked=True)
            await record(connection, client)
        return client

    async def _update(self, name: str, record: Record[Client], **values: Any) -> Client:
        async with writing(self._engine) as connection:
            statement = update(clients).where(clients.c.name == name).values(**values).returning(clients)
            client = _client((await connection.execute(statement)).one_or_none(), name)
            await _announce(connection, client, revoked=client.disabled_at is not None)
            await record(connection, client)
        return client


async def _announce(connection: AsyncConnection, client: Client, *, revoked: bool) -> None:
    until = datetime.now(UTC) + MAX_ACCESS_TOKEN_LIFETIME
    await announce(connection, f"client:{client.id}", revoked=revoked, expires_at=until)


def _generate_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def _client(row: Row[Any] | None, name: str = "") -> Client:
    """Return the client in a row. Raises ClientNotFound, which names the client, if there is no row."""
    if row is None:
        raise ClientNotFound(f"There is no client {name}. `atalaya clients list` prints the names.")
    return Client(row.id, row.name, parse_scopes(row.scopes), row.created_at, row.disabled_at)
