"""Orchestrators: where isolated model workers run, and how they are started and stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from modelyard.domain.routing import SealedSecret


class ReplicaState(StrEnum):
    """What an orchestrator says of a replica."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"
    LOST = "lost"
    """Its node says nothing any more: it may run or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpec:
    """One replica to be run. `id` is deterministic (`project.service.revision.index`): started twice, it is one.

    `cpus` and `memory_bytes` bound what it may use; None leaves that free.
    `node` is where it shall run, "" where the orchestrator places replicas itself. Started on another node than where
    it runs, it moves: the new one is made ready first, then the old one ends. `env` are variables of its own code by
    name; their texts are sealed, and opened where the worker starts.
    """

    id: str
    project: str
    service: str
    revision: int
    package: str
    threads: int = 1
    cpus: float | None = None
    memory_bytes: int | None = None
    node: str = ""
    device: str = "auto"
    env: Mapping[str, SealedSecret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica as observed. `address` is a Unix socket path or `host:port`; `restarts` counts crashes.

    `moving_to` is the node on which it is being made ready meanwhile, "" when it stays.
    """

    id: str
    state: ReplicaState
    address: str
    node: str
    restarts: int = 0
    reason: str = ""
    moving_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What this orchestrator can do; what it cannot is refused with the reason, never coerced.

    With `places_itself` it chooses the node of a replica; else it wants to be told. `shares_servers`: services may run
    in the listening model servers. `gives_secrets`: workers get secrets in their environment. `devices` are those that
    a service may ask for by name. `most_cpus` and `most_memory_bytes` are what its largest node gives, None where that
    is not known; `divides_cpus` says whether a worker may be given part of a processor.
    """

    limits_memory: bool
    limits_cpu: bool
    many_nodes: bool
    places_itself: bool = False
    shares_servers: bool = True
    gives_secrets: bool = False
    devices: tuple[str, ...] = ("cpu",)
    divides_cpus: bool = True
    most_cpus: float | None = None
    most_memory_bytes: int | None = None


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
