"""What people want of nodes. A node without a row is open."""

from sqlalchemy import Column, String, Table

from modelyard.control.records import METADATA, Moment

node_wishes = Table(
    "node_wishes",
    METADATA,
    Column("node", String(255), primary_key=True),
    Column("wish", String(16), nullable=False),
    Column("why", String(500), nullable=False),
    Column("by", String(255), nullable=False),
    Column("at", Moment, nullable=False),
)
