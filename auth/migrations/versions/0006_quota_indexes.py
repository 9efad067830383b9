"""Indexes of the owners that have a quota."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_HAS_QUOTA = sa.text("monthly_requests IS NOT NULL OR monthly_megapixels IS NOT NULL")


def upgrade() -> None:
    for table in ("users", "api_keys"):
        op.create_index(f"ix_{table}_quota", table, ["id"], sqlite_where=_HAS_QUOTA, postgresql_where=_HAS_QUOTA)


def downgrade() -> None:
    for table in ("users", "api_keys"):
        op.drop_index(f"ix_{table}_quota", table)
