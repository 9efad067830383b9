"""The API key that created a key, so that both can be revoked together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("parent_id", sa.String(16)))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_column("parent_id")
