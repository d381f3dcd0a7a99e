"""The table of backups."""

import sqlalchemy as sa
from alembic import op

revision = "backups_0001"
down_revision = None
branch_labels = ("backups",)
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "backups",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("sha256", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index(op.f("ix_backups_at"), "backups", ["at"])
