"""Indexes for the filters of the audit log, in the order of its entries."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_COLUMNS = ("event", "outcome", "actor")


def upgrade() -> None:
    for column in _COLUMNS:
        op.create_index(f"ix_audit_events_{column}_seq", "audit_events", [column, "seq"])
    op.drop_index("ix_audit_events_actor", "audit_events")


def downgrade() -> None:
    op.create_index("ix_audit_events_actor", "audit_events", ["actor"])
    for column in _COLUMNS:
        op.drop_index(f"ix_audit_events_{column}_seq", "audit_events")
