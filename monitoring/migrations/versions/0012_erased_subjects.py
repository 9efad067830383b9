"""Erased subjects, whose entries are erased when a spool delivers them after the erasure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "ledger_erased_subjects",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_ledger_erased_subjects"),
    )
    op.create_index("ix_ledger_erased_subjects_at", "ledger_erased_subjects", ["at"])


def downgrade() -> None:
    op.drop_table("ledger_erased_subjects")
