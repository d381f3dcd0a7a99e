"""What people want of nodes (one without a row is open), and what servers said, for other control planes."""

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table

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

boards = Table(
    "boards",
    METADATA,
    Column("plane", String(128), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("reports", LargeBinary, nullable=False),
)
"""What the servers of each control plane said last, where several share the records; `number` grows with each."""
