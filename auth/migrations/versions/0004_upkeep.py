"""Indexes to find administrators and expired rows, and the time of the last upkeep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INDEXES = (
    ("sessions", "expires_at"),
    ("sessions", "revoked_at"),
    ("changes", "expires_at"),
    ("login_failures", "last_at"),
    ("known_addresses", "last_at"),
)


def upgrade() -> None:
    op.create_index("ix_users_role_id", "users", ["role", "id"])
    for table, column in _INDEXES:
        op.create_index(f"ix_{table}_{column}", table, [column])
    op.create_table(
        "upkeep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_upkeep"),
    )


def downgrade() -> None:
    op.drop_table("upkeep")
    for table, column in _INDEXES:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_index("ix_users_role_id", "users")
