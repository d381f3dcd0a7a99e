"""Uploads that outlive their request: resumable ones, and those that are answered before they are decided."""

from sqlalchemy import JSON, Column, String, Table

from modelyard.control.records import METADATA, Moment

uploads = Table(
    "uploads",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("plan", JSON),
    Column("document", JSON),
    Column("keeper", String(16)),  # whose directory the bytes are in, where several control planes take uploads
)
