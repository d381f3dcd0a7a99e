"""Which backups were made, when, by whom, and how each ended: running, made or cut off."""

from sqlalchemy import BigInteger, Column, String, Table

from modelyard.control.records import METADATA, Moment

backups = Table(
    "backups",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("made_by", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("size_bytes", BigInteger),
    Column("sha256", String(64)),
)
