"""The tables of the auth package; `auth/migrations` creates them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, DateTime, Dialect, ForeignKey, Index, Integer, MetaData, String, Table
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time: accepts aware datetimes and returns them in UTC, even from SQLite, which stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _index_owners_with_quota(table: str) -> Index:
    """Index the few owners that have a quota, for the metrics.

    As for the other partial indexes, only the migration (0006) contains the condition: here it would make every process
    import SQLAlchemy's code for PostgreSQL.
    """
    return Index(f"ix_{table}_quota", "id")


users = Table(
    "users",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("disabled_at", UTCDateTime),
    Column("totp_secret", String(255)),  # encrypted
    Column("totp_confirmed_at", UTCDateTime),
    Column("totp_last_step", BigInteger),  # a code can be used once
    Column("monthly_requests", BigInteger),
    Column("monthly_megapixels", BigInteger),
    Column("images_allowed_since", UTCDateTime),  # null: none may be kept
    Index("ix_users_role_id", "role", "id"),
    Index("ix_users_images", "id"),  # partial: users who allow their images to be kept
    _index_owners_with_quota("users"),
)

# Services that log in as themselves (RFC 6749, section 4.4).
clients = Table(
    "clients",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("secret_digest", String(64), nullable=False),
    Column("scopes", String(255), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("disabled_at", UTCDateTime),
)

# One login with the family of its refresh tokens; its access tokens name it as `sid`.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("client_id", String(36)),  # the only client that may refresh it
    Column("scopes", String(255), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
    Column("revoked_at", UTCDateTime, index=True),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", UTCDateTime, nullable=False),
    Column("used_at", UTCDateTime),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("secret_digest", String(64), nullable=False),
    Column("previous_digest", String(64)),  # accepted until previous_until
    Column("previous_until", UTCDateTime),
    Column("scopes", String(255), nullable=False),
    Column("addresses", String(1024), nullable=False),  # networks, separated by spaces; empty means any address
    Column("rate", String(32)),
    Column("monthly_requests", BigInteger),
    Column("monthly_megapixels", BigInteger),
    Column("created_at", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime),
    Column("revoked_at", UTCDateTime),
    Column("last_used_at", UTCDateTime),
    Column("parent_id", String(16)),  # the key that created this one; null if its owner or a command did
    _index_owners_with_quota("api_keys"),
)

# Changes that every process must apply within a second; see auth/changes.py.
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("target", String(128), nullable=False),
    Column("revoked", Integer, nullable=False),
    Column("expires_at", UTCDateTime, nullable=False, index=True),
)

change_counter = Table(
    "change_counter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# Failed logins, by a digest of the account, the address or both.
login_failures = Table(
    "login_failures",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", UTCDateTime, nullable=False, index=True),
)

# Networks from which users have logged in: there, failures of other callers do not delay them.
known_addresses = Table(
    "known_addresses",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("last_at", UTCDateTime, nullable=False, index=True),
)

# Deleted users whose records have not been erased yet, and when the next attempt is due.
pending_erasures = Table(
    "pending_erasures",
    metadata,
    Column("user_id", String(36), primary_key=True),
    Column("actor", String(320), nullable=False),
    Column("due_at", UTCDateTime, nullable=False),
    Column("deleted_at", UTCDateTime),  # null in rows of earlier releases
)

# Users of external issuers, by the claims of their tokens, who are barred from this gateway.
barred_subjects = Table(
    "barred_subjects",
    metadata,
    Column("issuer", String(300), primary_key=True),
    Column("subject", String(300), primary_key=True),
    Column("barred_at", UTCDateTime, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("owner", String(320), primary_key=True),  # "user:", "key:", "client:" or "issuer:", followed by the id
    Column("month", String(7), primary_key=True),  # 2026-11, UTC
    Column("requests", BigInteger, nullable=False),
    Column("pixels", BigInteger, nullable=False),
)

# When a process last began each duty; see auth/login/upkeep.py.
upkeep = Table(
    "upkeep",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("last_at", UTCDateTime, nullable=False),
)
