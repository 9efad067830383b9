"""Run by Alembic, within an open connection and transaction (see storage/migrations.py)."""

from __future__ import annotations

from pathlib import Path

from alembic import context

from monitoring.audit.tables import metadata as audit
from monitoring.canary.tables import metadata as canary
from monitoring.cost.tables import metadata as cost
from monitoring.ledger.tables import metadata as ledger
from monitoring.quality.drift.tables import metadata as drift
from monitoring.quality.tables import metadata as quality
from monitoring.tasks.tables import metadata as tasks

# A version table of its own: the migrations of other packages share the database.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[audit, canary, cost, ledger, quality, drift, tasks],
    version_table=Path(__file__).with_name("version_table").read_text().strip(),
)
with context.begin_transaction():
    context.run_migrations()
