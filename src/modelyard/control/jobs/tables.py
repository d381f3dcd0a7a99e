"""Jobs, each of their attempts, and which stored files belong to them (`job` is empty for files not used yet)."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, String, Table

from modelyard.control.records import METADATA, Moment

jobs = Table(
    "jobs",
    METADATA,
    Column("id", String(40), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("kind", String(63), nullable=False),
    Column("service", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("owner", String(128), nullable=False),
    Column("actor", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("token", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("worker", String(128), nullable=False),
    Column("heard_at", Moment),
    Column("key_id", String(40), nullable=False),
    Column("progress", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("files", JSON, nullable=False),
    Column("candidates", JSON, nullable=False),
)
Index("ix_jobs_state", jobs.c.state, jobs.c.priority, jobs.c.due_at)
Index("ix_jobs_project", jobs.c.project, jobs.c.created_at)

job_attempts = Table(
    "job_attempts",
    METADATA,
    Column("job", String(40), primary_key=True),
    Column("token", Integer, primary_key=True),
    Column("worker", String(128), nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("how", String(16), nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("log", String(64), nullable=False),
)

job_blobs = Table(
    "job_blobs",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("job", String(40), primary_key=True, index=True),
    Column("project", String(63), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
)
