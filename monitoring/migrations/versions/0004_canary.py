"""The trials of candidates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "canary_trials",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("candidate", sa.String(64), nullable=False),
        sa.Column("production", sa.String(64), nullable=False),
        sa.Column("started_at", sa.String(27), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("judged_at", sa.String(27)),
        sa.Column("claimed_at", sa.String(27)),
        sa.Column("is_finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_canary_trials"),
    )
    op.create_table(
        "canary_counts",
        sa.Column("trial", sa.String(64), nullable=False),
        sa.Column("metric", sa.String(16), nullable=False),
        sa.Column("worse", sa.BigInteger(), nullable=False),
        sa.Column("same", sa.BigInteger(), nullable=False),
        sa.Column("better", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("trial", "metric", name="pk_canary_counts"),
    )
    op.create_table(
        "canary_pairs",
        sa.Column("prediction", sa.String(36), nullable=False),
        sa.Column("trial", sa.String(64), nullable=False),
        sa.Column("candidate", sa.Text(), nullable=False),
        sa.Column("production", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prediction", name="pk_canary_pairs"),
    )
    op.create_index("ix_canary_pairs_trial", "canary_pairs", ["trial"])


def downgrade() -> None:
    for name in ("pairs", "counts", "trials"):
        op.drop_table(f"canary_{name}")
