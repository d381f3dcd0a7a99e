"""Which control plane keeps the bytes of an upload."""

import sqlalchemy as sa
from alembic import op

revision = "intake_0002"
down_revision = "intake_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of uploads before nothing is known."""
    op.add_column("uploads", sa.Column("keeper", sa.String(length=16), nullable=True))
