"""Limits of keys, and quotas of projects."""

import sqlalchemy as sa
from alembic import op

revision = "identity_0002"
down_revision = "identity_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nothing is limited yet."""
    op.add_column("keys", sa.Column("limits", sa.JSON(), nullable=True))
    op.add_column("projects", sa.Column("requests_per_day", sa.BigInteger(), nullable=True))
    op.add_column("projects", sa.Column("requests_per_month", sa.BigInteger(), nullable=True))
