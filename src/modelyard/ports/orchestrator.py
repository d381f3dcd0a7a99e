"""Orchestrators: where isolated model workers run, and how they are started and stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ReplicaState(StrEnum):
    """What an orchestrator says of a replica."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """One replica to be run. `id` is deterministic (`project.service.revision.index`): started twice, it is one."""

    id: str
    project: str
    service: str
    revision: int
    package: str
    threads: int = 1
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica as observed. `address` is a Unix socket path or `host:port`; `restarts` counts crashes."""

    id: str
    state: ReplicaState
    address: str
    node: str
    restarts: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What this orchestrator can do; what it cannot is refused with the reason, never coerced."""

    limits_memory: bool
    limits_cpu: bool
    many_nodes: bool


class Orchestrator(Protocol):
    """Runs replicas. Every call is idempotent and blocks until the wish is recorded, not until it is fulfilled."""

    name: str

    def abilities(self) -> Abilities:
        """What it can do."""

    def start(self, replica: ReplicaSpec) -> None:
        """See to it that this replica runs, also after it crashes."""

    def stop(self, replica_id: str, *, grace_s: float) -> None:
        """Drain, then end it."""

    def replicas(self) -> Sequence[Replica]:
        """All replicas that this platform started here."""
