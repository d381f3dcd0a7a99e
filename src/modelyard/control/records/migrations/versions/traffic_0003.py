"""What is set for all model servers."""

import sqlalchemy as sa
from alembic import op

revision = "traffic_0003"
down_revision = "traffic_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; nothing is set yet."""
    op.create_table(
        "serving_settings",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_serving_settings")),
    )
