"""The prediction ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _entry_key() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
    )


def _signed() -> tuple[sa.Column[Any], ...]:
    return sa.Column("key", sa.String(16), nullable=False), sa.Column("signature", sa.String(88), nullable=False)


def upgrade() -> None:
    op.create_table(
        "ledger_entries",
        *_entry_key(),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("commitment", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("writer", "seq", name="pk_ledger_entries"),
        sa.UniqueConstraint("id", name="uq_ledger_entries_id"),
    )
    op.create_index("ix_ledger_entries_at", "ledger_entries", ["at"])
    op.create_table(
        "ledger_payloads",
        *_entry_key(),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("principal", sa.String(320), nullable=False),
        sa.Column("model", sa.String(320), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("writer", "seq", name="pk_ledger_payloads"),
    )
    op.create_index("ix_ledger_payloads_principal_id", "ledger_payloads", ["principal", "id"])
    op.create_table(
        "ledger_erasures",
        *_entry_key(),
        sa.Column("at", sa.String(27), nullable=False),
        *_signed(),
        sa.PrimaryKeyConstraint("writer", "seq", name="pk_ledger_erasures"),
    )
    op.create_table(
        "ledger_heads",
        *_entry_key(),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("checkpoint", sa.BigInteger(), nullable=False),
        sa.Column("claimed", sa.BigInteger(), nullable=False),
        *_signed(),
        sa.PrimaryKeyConstraint("writer", name="pk_ledger_heads"),
    )
    op.create_table(
        "ledger_checkpoints",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("heads", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        *_signed(),
        sa.PrimaryKeyConstraint("number", name="pk_ledger_checkpoints"),
    )
    op.create_table(
        "ledger_stumps",
        *_entry_key(),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        *_signed(),
        sa.PrimaryKeyConstraint("writer", name="pk_ledger_stumps"),
    )


def downgrade() -> None:
    for name in ("stumps", "checkpoints", "heads", "erasures", "payloads", "entries"):
        op.drop_table(f"ledger_{name}")
