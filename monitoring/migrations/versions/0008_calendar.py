"""When the maintenance calendar began: tasks that have never run are due one interval later."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_START = "calendar_start"
_task_runs = sa.table("task_runs", sa.column("task"), sa.column("succeeded_at"), sa.column("failures"))


def upgrade() -> None:
    op.bulk_insert(_task_runs, [{"task": _START, "succeeded_at": int(time.time()), "failures": 0}])


def downgrade() -> None:
    op.execute(sa.delete(_task_runs).where(_task_runs.c.task == _START))
