"""Run by Alembic: `storage.database.migrate` hands it an open connection and a transaction."""

from __future__ import annotations

from alembic import context

from auth.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
