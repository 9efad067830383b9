"""Which users allow their images to be kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("users", sa.Column("keep_images", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_users_keep_images", "users", ["keep_images", "id"])


def downgrade() -> None:
    op.drop_index("ix_users_keep_images", "users")
    op.drop_column("users", "keep_images")
