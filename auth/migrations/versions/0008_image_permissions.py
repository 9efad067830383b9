"""The time since which users allow their images to be kept: images sent earlier may not be kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ALLOWED = sa.text("images_allowed_since IS NOT NULL")


def upgrade() -> None:
    op.add_column("users", sa.Column("images_allowed_since", sa.DateTime(timezone=True)))
    op.execute("UPDATE users SET images_allowed_since = created_at WHERE keep_images = 1")
    op.drop_index("ix_users_keep_images", "users")
    op.drop_column("users", "keep_images")
    op.create_index("ix_users_images", "users", ["id"], sqlite_where=_ALLOWED, postgresql_where=_ALLOWED)


def downgrade() -> None:
    op.drop_index("ix_users_images", "users")
    op.add_column("users", sa.Column("keep_images", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE users SET keep_images = 1 WHERE images_allowed_since IS NOT NULL")
    op.drop_column("users", "images_allowed_since")
    op.create_index("ix_users_keep_images", "users", ["keep_images", "id"])
