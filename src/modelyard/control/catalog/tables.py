"""Tables of the model library."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from modelyard.control.records import METADATA, Moment

models = Table(
    "models",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("name", String(63), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("visibility", String(16), nullable=False, default="private"),
    Column("task", String(32), nullable=False, default=""),
    Column("library", String(64), nullable=False, default=""),
    Column("format", String(32), nullable=False, default=""),
    Column("search_text", Text, nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("edition", Integer, nullable=False, default=1),
    UniqueConstraint("project", "name"),
    Index("ix_models_updated", "updated_at"),
)

model_tags = Table(
    "model_tags",
    METADATA,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String(63), primary_key=True),
    Index("ix_model_tags_tag", "tag"),
)

model_shares = Table(
    "model_shares",
    METADATA,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("project", String(63), primary_key=True),
)

model_versions = Table(
    "model_versions",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("version", String(63), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("numeric", BigInteger),
    Column("digest", String(80), nullable=False),
    Column("format", String(32), nullable=False),
    Column("task", String(32), nullable=False),
    Column("library", String(64), nullable=False),
    Column("isolation", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("has_package", Boolean, nullable=False),
    Column("contract", JSON(none_as_null=True)),
    Column("golden", JSON(none_as_null=True)),
    Column("audit", JSON, nullable=False),
    Column("card", Text, nullable=False, default=""),
    Column("source", JSON, nullable=False),
    Column("author_id", String(128), nullable=False),
    Column("author_name", String(255), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("decided_by", String(255)),
    Column("decided_at", Moment),
    Column("reason", Text, nullable=False, default=""),
    Column("edition", Integer, nullable=False, default=1),
    UniqueConstraint("model_id", "version"),
    UniqueConstraint("model_id", "ordinal", name="uq_model_versions_ordinal"),
    Index("ix_model_versions_state", "state"),
    Index("ix_model_versions_digest", "digest"),
)

version_files = Table(
    "version_files",
    METADATA,
    Column("version_id", ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Index("ix_version_files_sha256", "sha256"),
)

model_aliases = Table(
    "model_aliases",
    METADATA,
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version_id", ForeignKey("model_versions.id", ondelete="CASCADE"), nullable=False),
    Column("set_at", Moment, nullable=False),
    Column("set_by", String(255), nullable=False),
)
