"""The time of each deletion, so that its erasure is repeated once requests that were running then have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("pending_erasures", sa.Column("deleted_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    with op.batch_alter_table("pending_erasures") as erasures:
        erasures.drop_column("deleted_at")
