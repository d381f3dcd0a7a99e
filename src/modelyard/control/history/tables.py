"""Tables of history. An entry is written with its change; the sequencer gives it a place in the chain soon after."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, String, Table

from modelyard.control.records import METADATA, Moment

history = Table(
    "history",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("at", Moment, nullable=False),
    Column("actor_kind", String(16), nullable=False),
    Column("actor_id", String(128), nullable=False),
    Column("actor_name", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project", String(63)),
    Column("subject", String(255), nullable=False),
    Column("payload", JSON(none_as_null=True)),
    Column("payload_digest", String(64), nullable=False),
    Column("sequence", BigInteger, unique=True),
    Column("previous", String(64)),
    Column("seal", String(64)),
    Index("ix_history_subject", "project", "subject", "at"),
    Index("ix_history_at", "at"),
    Index("ix_history_action", "action", "at"),
    sqlite_autoincrement=True,
)
