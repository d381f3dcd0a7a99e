"""The table of what people want of nodes."""

import sqlalchemy as sa
from alembic import op

revision = "nodes_0001"
down_revision = None
branch_labels = ("nodes",)
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "node_wishes",
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("wish", sa.String(16), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_node_wishes")),
    )
