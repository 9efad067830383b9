"""API keys, `atl_<id>_<secret>`, for programs that act on behalf of a user without logging in."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from msgspec import Struct
from sqlalchemy import Row, Select, and_, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from auth.api_keys.families import find_unrevoked_descendants
from auth.authenticator import VerifiedCredential
from auth.changes import announce
from auth.errors import InvalidToken, KeyBound, KeyEnded, KeyNotFound, NoAccount, TooManyKeys
from auth.networks import Network
from auth.principal import ROLE_SCOPES, Principal, Role, Scope, format_scopes, parse_scopes
from auth.sessions import MAX_ACCESS_TOKEN_LIFETIME
from auth.tables import api_keys, users
from auth.tokens.digests import hash_text
from storage.transactions import Record, reading, record_nothing, writing

KEY_PREFIX = "atl_"
MAX_KEYS = 100
OVERLAP = timedelta(hours=24)
# How long a process may use a verified key without reading it again; announced changes take effect sooner.
RECHECK_S = 60.0

_KEY = re.compile(KEY_PREFIX + r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
# Databases reject some characters with an error, so text that cannot be an id is never looked up.
_ID = re.compile(r"[0-9a-f]{16}")
_USER_ID = re.compile(r"[0-9a-f-]{36}")


class KeyTerms(Struct, frozen=True):
    """What a key may do, and until when (UTC).

    `rate` is N/second, N/minute, N/hour or N/day. Empty `addresses` allow any address.
    """

    name: str
    scopes: frozenset[Scope]
    expires_at: datetime
    addresses: tuple[Network, ...] = ()
    rate: str | None = None
    monthly_requests: int | None = None
    monthly_megapixels: int | None = None


class ApiKey(Struct, frozen=True):
    """An API key without its secret. Times are UTC; the secret before a rotation is accepted until `previous_until`.

    `parent_id` is the id of the key that created this one; None if its owner created it after a login.
    """

    id: str
    user_id: str
    user_name: str
    terms: KeyTerms
    created_at: datetime
    previous_until: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    parent_id: str | None = None


class KeyStore:
    """Stores API keys. Every method raises DatabaseUnavailable; `clock` returns seconds since 1970.

    Methods that change something call `record` in the same transaction.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    async def create(
        self, user_id: str, terms: KeyTerms, parent_id: str | None = None, *, record: Record[ApiKey] = record_nothing
    ) -> tuple[ApiKey, str]:
        """Create a key; return it and its text, which is not stored. `parent_id` is the key that creates it, if any.

        Raises NoAccount, TooManyKeys, and InvalidToken if the parent was revoked in the meantime.
        """
        now, key_id, secret = self._now(), secrets.token_hex(8), secrets.token_urlsafe(32)
        row = {
            "id": key_id,
            "user_id": user_id,
            "name": terms.name,
            "secret_digest": hash_text(secret),
            "scopes": format_scopes(terms.scopes),
            "addresses": " ".join(map(str, terms.addresses)),
            "rate": terms.rate,
            "monthly_requests": terms.monthly_requests,
            "monthly_megapixels": terms.monthly_megapixels,
            "created_at": now,
            "expires_at": terms.expires_at,
            "parent_id": parent_id,
        }
        async with writing(self._engine) as connection:
            await _check_owner(connection, user_id, now)
            if parent_id is not None and (await _get(connection, parent_id)).revoked_at is not None:
                raise InvalidToken("The credential was revoked. Log in again.")
            await connection.execute(insert(api_keys).values(**row))
            key = await _get(connection, key_id)
            await record(connection, key)
        return key, _format_key(key_id, secret)

    async def get(self, key_id: str) -> ApiKey:
        """Return a key. Raises KeyNotFound."""
        async with reading(self._engine) as connection:
            return await _get(connection, key_id)

    async def list(
        self, user_id: str | None = None, limit: int | None = None, after: str | None = None
    ) -> Sequence[ApiKey]:
        """Return the keys of a user, or all keys, oldest first, including expired and revoked ones.

        `limit` limits their number, and `after` is the id of the key after which the list begins. Raises KeyNotFound if
        that key does not exist or belongs to another user.
        """
        if user_id is not None and not _USER_ID.fullmatch(user_id):
            return []
        order = api_keys.c.created_at, api_keys.c.id
        statement = _select_keys().order_by(*order).limit(limit)
        if user_id is not None:
            statement = statement.where(api_keys.c.user_id == user_id)
        async with reading(self._engine) as connection:
            if after is not None:
                last = await _get(connection, after)
                if user_id is not None and last.user_id != user_id:
                    raise KeyNotFound
                statement = statement.where(tuple_(*order) > tuple_(last.created_at, last.id))
            return [_key(row) for row in await connection.execute(statement)]

    async def rotate(
        self,
        key_id: str,
        overlap: timedelta,
        expires_at: datetime | None = None,
        *,
        used_digest: str | None = None,
        record: Record[ApiKey] = record_nothing,
    ) -> tuple[ApiKey, str]:
        """Replace the secret, and return the key and its new text.

        The previous secret stays valid for `overlap`; older ones become invalid. The key expires at `expires_at`, or as
        before if that is None. `used_digest` is the digest of the secret with which a key rotates itself. Raises
        KeyNotFound, KeyEnded, and KeyBound if that secret is not the current one: it could undo the last rotation.
        """
        now, secret = self._now(), secrets.token_urlsafe(32)
        values: dict[str, Any] = {
            "secret_digest": hash_text(secret),
            "previous_digest": api_keys.c.secret_digest,
            "previous_until": now + overlap,
        }
        values |= {"expires_at": expires_at} if expires_at else {}
        async with writing(self._engine) as connection:
            if (row := await _find_row(connection, key_id, lock=True)) is None:
                raise KeyNotFound
            if row.revoked_at is not None or row.expires_at <= now:
                raise KeyEnded("The key was revoked or has expired. Create another one.")
            if used_digest not in (None, row.secret_digest):
                raise KeyBound("The previous secret of an API key cannot rotate it. Use the new secret, or log in.")
            await connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(**values))
            await announce(connection, f"key:{key_id}", revoked=False, expires_at=now + MAX_ACCESS_TOKEN_LIFETIME)
            key = await _get(connection, key_id)
            await record(connection, key)
        return key, _format_key(key_id, secret)

    async def revoke(
        self, key_id: str, *, cascade: bool = False, record: Record[Sequence[ApiKey]] = record_nothing
    ) -> Sequence[ApiKey]:
        """Revoke the key permanently, and with `cascade` also all keys created with it, directly or through others.

        Returns the key, followed by the descendants that were not revoked before. Repeated calls do not change the time
        of the revocation. Raises KeyNotFound.
        """
        now = self._now()
        async with writing(self._engine) as connection:
            key = await _get(connection, key_id)
            # The lock makes a concurrent creation wait, so that its key is either revoked here or rejected.
            await connection.execute(select(users.c.id).where(users.c.id == key.user_id).with_for_update())
            descendants = await find_unrevoked_descendants(connection, key.id, key.user_id) if cascade else []
            ids = [key_id, *descendants]
            revoked_at = func.coalesce(api_keys.c.revoked_at, now)
            await connection.execute(update(api_keys).where(api_keys.c.id.in_(ids)).values(revoked_at=revoked_at))
            targets = [f"key:{each}" for each in ids]
            await announce(connection, *targets, revoked=True, expires_at=now + MAX_ACCESS_TOKEN_LIFETIME)
            revoked = [await _get(connection, each) for each in ids]
            await record(connection, revoked)
        return revoked

    async def verify(self, credential: str) -> VerifiedCredential:
        """Verify an API key. Raises InvalidToken, with the same message for every reason."""
        match = _KEY.fullmatch(credential)
        row = await self._find(match[1]) if match else None
        now = self._now()
        digest = hash_text(match[2]) if match else ""
        until = _find_expiry(row, digest) if row else None
        if row is None or until is None or until <= now:
            raise InvalidToken("This is not a valid API key. Check it, or create another.")
        key, role = _key(row), Role(row.role)
        principal = Principal(
            subject=key.user_id,
            name=key.user_name,
            role=role,
            scopes=key.terms.scopes & ROLE_SCOPES[role],
            expires_at=until,
            key_id=key.id,
            key_digest=digest,
            rate=key.terms.rate,
        )
        valid_until = min(until.timestamp(), now.timestamp() + RECHECK_S)
        targets = frozenset({f"key:{key.id}", f"user:{key.user_id}"})
        return VerifiedCredential(principal, valid_until, targets, key.terms.addresses)

    async def _find(self, key_id: str) -> Row[Any] | None:
        async with reading(self._engine) as connection:
            return await _find_row(connection, key_id)


def is_api_key(credential: str) -> bool:
    return credential.startswith(KEY_PREFIX)


def _find_expiry(row: Row[Any], digest: str) -> datetime | None:
    """Return when the secret stops being accepted; None for a wrong secret, a revoked key or a disabled owner."""
    current = hmac.compare_digest(row.secret_digest, digest)
    previous = hmac.compare_digest(row.previous_digest or "", digest)
    if row.revoked_at or row.user_disabled_at or not (current or previous):
        return None
    expires_at: datetime = row.expires_at
    return expires_at if current else min(expires_at, row.previous_until)


async def _check_owner(connection: AsyncConnection, user_id: str, now: datetime) -> None:
    """Lock the owner, so that the keys of one user are created one after another. Raises NoAccount, TooManyKeys."""
    enabled = select(users.c.id).where(users.c.id == user_id, users.c.disabled_at.is_(None)).with_for_update()
    if not _USER_ID.fullmatch(user_id) or (await connection.execute(enabled)).one_or_none() is None:
        raise NoAccount("Only enabled users of this gateway can have API keys. Log in as one.")
    active = and_(api_keys.c.revoked_at.is_(None), api_keys.c.expires_at > now)
    # Revoked keys of the last day are counted too: otherwise creating and revoking in turn would fill the table.
    counted = or_(active, api_keys.c.created_at > now - timedelta(days=1))
    statement = select(func.count()).select_from(api_keys).where(api_keys.c.user_id == user_id, counted)
    if (await connection.execute(statement)).scalar_one() >= MAX_KEYS:
        raise TooManyKeys(
            f"A user can have {MAX_KEYS} API keys, and create as many in a day. Revoke old keys, or wait a day."
        )


def _select_keys() -> Select[Any]:
    """Select the keys, each with its owner's name, role and `disabled_at`."""
    owner = users.c.name.label("user_name"), users.c.role, users.c.disabled_at.label("user_disabled_at")
    return select(api_keys, *owner).join(users, api_keys.c.user_id == users.c.id)


async def _find_row(connection: AsyncConnection, key_id: str, *, lock: bool = False) -> Row[Any] | None:
    """Return the row of a key; None for what is not an id of a key. With `lock`, others cannot change it meanwhile."""
    if not _ID.fullmatch(key_id):
        return None
    statement = _select_keys().where(api_keys.c.id == key_id)
    if lock:
        statement = statement.with_for_update(of=api_keys)
    row: Row[Any] | None = (await connection.execute(statement)).one_or_none()
    return row


async def _get(connection: AsyncConnection, key_id: str) -> ApiKey:
    """Raises KeyNotFound."""
    row = await _find_row(connection, key_id)
    if row is None:
        raise KeyNotFound
    return _key(row)


def _key(row: Row[Any]) -> ApiKey:
    terms = KeyTerms(
        name=row.name,
        scopes=parse_scopes(row.scopes),
        expires_at=row.expires_at,
        addresses=tuple(map(ip_network, row.addresses.split())),
        rate=row.rate,
        monthly_requests=row.monthly_requests,
        monthly_megapixels=row.monthly_megapixels,
    )
    times = row.created_at, row.previous_until, row.revoked_at, row.last_used_at
    return ApiKey(row.id, row.user_id, row.user_name, terms, *times, parent_id=row.parent_id)


def _format_key(key_id: str, secret: str) -> str:
    return f"{KEY_PREFIX}{key_id}_{secret}"
