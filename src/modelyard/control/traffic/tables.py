"""Routing tables as they were published, the newest is the one in force; what is known of canaries; what is set."""

from sqlalchemy import JSON, BigInteger, Column, Integer, LargeBinary, String, Table

from modelyard.control.records import METADATA, Moment

routing_tables = Table(
    "routing_tables",
    METADATA,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("document", LargeBinary, nullable=False),
    Column("at", Moment, nullable=False),
)

canaries = Table(
    "canaries",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("service", String(63), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("stable", Integer, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("looked_at", Moment, nullable=False),
)
"""What is known of each canary, one row a revision that was one; `evidence` is an `Evidence` as JSON."""

serving_settings = Table(
    "serving_settings",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("document", JSON, nullable=False),
    Column("at", Moment, nullable=False),
)
"""What was set for all model servers, by name."""
