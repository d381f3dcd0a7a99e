"""The table of routing tables."""

import sqlalchemy as sa
from alembic import op

revision = "traffic_0001"
down_revision = None
branch_labels = ("traffic",)
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "routing_tables",
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_routing_tables")),
    )
