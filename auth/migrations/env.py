"""Run by Alembic with the open connection that `storage.migrations.migrate` passes."""

from __future__ import annotations

from alembic import context

from auth.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
