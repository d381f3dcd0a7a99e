"""What the servers of each control plane said last."""

import sqlalchemy as sa
from alembic import op

revision = "nodes_0002"
down_revision = "nodes_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "boards",
        sa.Column("plane", sa.String(length=128), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("reports", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("plane", name=op.f("pk_boards")),
    )
