"""When scheduled commands last succeeded and failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "task_runs",
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("succeeded_at", sa.BigInteger()),
        sa.Column("failed_at", sa.BigInteger()),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task", name="pk_task_runs"),
    )


def downgrade() -> None:
    op.drop_table("task_runs")
