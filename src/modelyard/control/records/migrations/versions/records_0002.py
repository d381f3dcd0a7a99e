"""The lease of the leader."""

import sqlalchemy as sa
from alembic import op

revision = "records_0002"
down_revision = "records_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, with its one row: nobody leads."""
    leadership = op.create_table(
        "leadership",
        sa.Column("role", sa.String(length=63), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leadership")),
        sa.UniqueConstraint("token", name=op.f("uq_leadership_token")),
    )
    op.bulk_insert(leadership, [{"role": "control", "token": 0, "holder": "", "until": 0}])
