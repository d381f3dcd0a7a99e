"""What the capability speaks of: a job as it is stored, its attempts, and what a worker is told and tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelyard.control.identity import Actor
from modelyard.domain.jobs import JobSpec, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. `service` is the one it asks, or empty; `token` counts its claims."""

    id: str
    project: str
    kind: str
    service: str
    state: JobState
    spec: JobSpec
    inputs: Mapping[str, Any]
    owner: str
    actor: Actor
    due_at: datetime
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    token: int
    failed: int
    lost: int
    worker: str
    heard_at: datetime | None
    key_id: str
    progress: Mapping[str, Any]
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    files: Mapping[str, Any]
    candidates: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One claim of a job and how it ended; `log` is the digest of what it printed."""

    token: int
    worker: str
    began_at: datetime
    ended_at: datetime | None
    how: str
    error: Mapping[str, Any] | None
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """Where a service is asked, and with which key; empty where none is needed."""

    url: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker is told of the job it got. `inputs`: name → files with their digest and store."""

    job: str
    token: int
    kind: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    seed: int
    attempt: int
    limit_s: float | None = None
    network: bool = False
    service: ServiceAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a worker says of its job. Which of the fields count depends on what it says."""

    job: str
    token: int
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    candidates: Sequence[Mapping[str, Any]] = ()
    failure: str = "error"
    error: Mapping[str, Any] | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A worker that asks for a job, and how long it waits."""

    worker: str
    wait_s: float = 0.0
