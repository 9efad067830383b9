"""The ledger's tables; `monitoring/migrations` makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

_WRITER, _HASH, _TIME, _KEY, _SIGNATURE = String(36), String(64), String(27), String(16), String(88)


def _place() -> tuple[Column[str], Column[int]]:
    """Which entry of which writer."""
    return (
        Column("writer", _WRITER, primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
    )


def _signed() -> tuple[Column[str], Column[str]]:
    return Column("key", _KEY, nullable=False), Column("signature", _SIGNATURE, nullable=False)


ledger_entries = Table(
    "ledger_entries",
    metadata,
    *_place(),
    Column("id", String(36), nullable=False, unique=True),  # UUIDv7
    Column("at", _TIME, nullable=False, index=True),  # 2026-11-03T09:30:00.000000Z
    Column("commitment", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
)

# Apart from the entries, so that it can be forgotten while the chain stays.
ledger_payloads = Table(
    "ledger_payloads",
    metadata,
    *_place(),
    Column("id", String(36), nullable=False),
    Column("principal", String(320), nullable=False),
    Column("model", String(320), nullable=False),
    Column("status", Integer, nullable=False),
    Column("salt", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Index("ix_ledger_payloads_principal_id", "principal", "id"),
)

ledger_erasures = Table("ledger_erasures", metadata, *_place(), Column("at", _TIME, nullable=False), *_signed())

# One row a writer. `claimed` is the last entry that a checkpoint has named, -1 before the first.
ledger_heads = Table(
    "ledger_heads",
    metadata,
    Column("writer", _WRITER, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("checkpoint", BigInteger, nullable=False),
    Column("claimed", BigInteger, nullable=False),
    *_signed(),
)

ledger_checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _TIME, nullable=False),
    Column("heads", Text, nullable=False),
    Column("previous", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
    *_signed(),
)

# Where each pruned chain begins now.
ledger_stumps = Table(
    "ledger_stumps",
    metadata,
    Column("writer", _WRITER, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("at", _TIME, nullable=False),
    *_signed(),
)
