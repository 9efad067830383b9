"""Drift: a state for each caller's predictions, and the findings of metrics that differed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def _name(column: str) -> sa.Column[Any]:
    return sa.Column(column, sa.String(320), nullable=False)


def _time(column: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.String(27), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "drift_states",
        _name("model"),
        _name("caller"),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        _time("seen_at"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "caller", name="pk_drift_states"),
    )
    op.create_index("ix_drift_states_seen_at", "drift_states", ["seen_at"])
    op.create_table(
        "drift_findings",
        _name("model"),
        _name("caller"),
        sa.Column("metric", sa.String(32), nullable=False),
        _time("found_at"),
        _time("since"),
        _name("change"),
        sa.Column("reference", sa.Double()),
        sa.Column("recent", sa.Double()),
        _time("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("model", "caller", "metric", "found_at", name="pk_drift_findings"),
    )
    op.create_index("ix_drift_findings_ended_at", "drift_findings", ["ended_at"])


def downgrade() -> None:
    for name in ("drift_findings", "drift_states"):
        op.drop_table(name)
