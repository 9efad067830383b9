"""The table of scheduled commands; `monitoring/migrations` creates it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, String, Table

metadata = MetaData()

# A row for each task that has run. Times are seconds since 1970.
task_runs = Table(
    "task_runs",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("succeeded_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("failures", BigInteger, nullable=False),
)
