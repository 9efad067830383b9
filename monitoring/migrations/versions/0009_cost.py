"""What predictions cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "caller_sums",
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("caller", sa.String(320), nullable=False),
        *_traffic(),
        sa.PrimaryKeyConstraint("month", "caller", name="pk_caller_sums"),
    )
    op.create_table(
        "traffic_hours",
        sa.Column("hour", sa.String(13), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        *_traffic(),
        sa.PrimaryKeyConstraint("hour", name="pk_traffic_hours"),
    )
    op.create_table(
        "cost_sum_ends",
        sa.Column("writer", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_cost_sum_ends"),
    )
    op.create_table(
        "resource_hours",
        sa.Column("hour", sa.String(13), nullable=False),
        sa.Column("processor_s", sa.Double(), nullable=False),
        sa.Column("memory_gb_s", sa.Double(), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name="pk_resource_hours"),
    )


def _traffic() -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in ("predictions", "busy_us", "bytes")]


def downgrade() -> None:
    for table in ("resource_hours", "cost_sum_ends", "traffic_hours", "caller_sums"):
        op.drop_table(table)
