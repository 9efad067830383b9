"""Evaluations of the served model on a validation set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("data_digest", sa.String(64), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("lower", sa.Double(), nullable=False),
        sa.Column("upper", sa.Double(), nullable=False),
        sa.Column("macro_f1", sa.Double(), nullable=False),
        sa.Column("ece", sa.Double(), nullable=False),
        sa.Column("correct", sa.Text(), nullable=False),
        sa.Column("reference", sa.String(36)),
        sa.Column("lost", sa.Integer()),
        sa.Column("gained", sa.Integer()),
        sa.Column("p_value", sa.Double()),
        sa.Column("is_loss", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_data_digest", "evaluations", ["data_digest"])


def downgrade() -> None:
    op.drop_table("evaluations")
