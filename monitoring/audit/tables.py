"""The tables of the audit log; `monitoring/migrations` creates them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# Times and details are stored as text, so that both databases return exactly the bytes that were hashed.
audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(36), nullable=False, unique=True),  # UUIDv7
    Column("at", String(27), nullable=False, index=True),  # 2026-11-03T09:30:00.000000Z
    Column("event", String(32), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("actor", String(320), nullable=False),
    Column("target", String(320), nullable=False),
    Column("address", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("detail", Text, nullable=False),  # a JSON object of texts
    Column("count", Integer, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    # For listing the newest entries with a given event, outcome or actor.
    *(Index(f"ix_audit_events_{name}_seq", name, "seq") for name in ("event", "outcome", "actor")),
)

# One row: the end of the chain, and the last entry that was pruned.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("pruned_hash", String(64), nullable=False),
)
