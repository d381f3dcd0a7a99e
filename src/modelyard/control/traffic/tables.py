"""Routing tables as they were published; the newest is the one in force."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table

from modelyard.control.records import METADATA, Moment

routing_tables = Table(
    "routing_tables",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),
    Column("at", Moment, nullable=False),
)
