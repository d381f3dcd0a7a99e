"""Tables of deployments: a service with its status, and every revision it ever had."""

from sqlalchemy import JSON, Column, Integer, String, Table

from modelyard.control.records import METADATA, Moment

services = Table(
    "services",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("phase", String(16), nullable=False, index=True),
    Column("status", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("edition", Integer, nullable=False),
)

revisions = Table(
    "service_revisions",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("service", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("why", String(500), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("live_at", Moment),
)
