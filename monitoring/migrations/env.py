"""Run by Alembic: whoever migrates hands it an open connection and a transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import context

from monitoring.audit.tables import metadata as audit
from monitoring.ledger.tables import metadata as ledger

# A version table of the room's own: other rooms' migrations share the database.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[audit, ledger],
    version_table=Path(__file__).with_name("version_table").read_text().strip(),
)
with context.begin_transaction():
    context.run_migrations()
