"""Labels of past predictions, and the sums that estimate accuracy without labels."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _name(column: str) -> sa.Column[Any]:
    return sa.Column(column, sa.String(320), nullable=False)


def upgrade() -> None:
    op.create_table(
        "ledger_labels",
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("prediction", sa.String(36), nullable=False),
        sa.Column("predicted_at", sa.String(27), nullable=False),
        _name("model"),
        _name("version"),
        _name("predicted"),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("abstained", sa.Integer(), nullable=False),
        _name("label"),
        sa.PrimaryKeyConstraint("writer", "seq", name="pk_ledger_labels"),
    )
    op.create_index("ix_ledger_labels_prediction_id", "ledger_labels", ["prediction", "id"])
    op.create_index("ix_ledger_labels_model", "ledger_labels", ["model", "version", "predicted_at"])
    op.create_table(
        "prediction_sums",
        _name("model"),
        _name("version"),
        sa.Column("hour", sa.String(13), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("variance", sa.Double(), nullable=False),
        sa.Column("abstained", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "hour", name="pk_prediction_sums"),
    )
    op.create_table(
        "prediction_sum_ends",
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_prediction_sum_ends"),
    )


def downgrade() -> None:
    for name in ("prediction_sum_ends", "prediction_sums", "ledger_labels"):
        op.drop_table(name)
