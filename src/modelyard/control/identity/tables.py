"""Tables of identity: projects, keys, secrets, and the one-time tokens of a first start.

No key is stored, only its hash; secrets are sealed.
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, String, Table, Text

from modelyard.control.records import METADATA, Moment

projects = Table(
    "projects",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("description", String(2000), nullable=False, default=""),
    Column("two_person_review", Boolean, nullable=False, default=False),
    Column("created_at", Moment, nullable=False),
    Column("edition", Integer, nullable=False, default=1),
    Column("requests_per_day", BigInteger),
    Column("requests_per_month", BigInteger),
)

keys = Table(
    "keys",
    METADATA,
    Column("id", String(8), primary_key=True),
    Column("mac", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("project", String(63), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    Column("limits", JSON),
)

bootstrap_tokens = Table(
    "bootstrap_tokens",
    METADATA,
    Column("mac", String(64), primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
)

secrets = Table(
    "secrets",
    METADATA,
    Column("project", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("set_by", String(255), nullable=False),
    Column("edition", Integer, nullable=False),
)
