"""The values that planning is about: what is seen, how patient one is, and what is to be done. No I/O."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.control.deployments.state import Preparation, PreparationState, RevisionState, Status
from modelyard.domain.routing import ServerReport
from modelyard.ports.orchestrator import Replica, ReplicaSpec

CRASHES: Final = 3
"""A candidate whose worker crashed this often is given up before its patience ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things may take, in seconds, and how much of what was live is kept loaded.

    A candidate has `patience_s` to become ready, workers `grace_s` to drain; `sweep_s` lies between two sweeps. The
    last `warm_revisions` that were live stay loaded for `warm_s`.
    """

    patience_s: float = 120.0
    grace_s: float = 30.0
    sweep_s: float = 2.0
    warm_s: float = 600.0
    warm_revisions: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is seen now. `servers` are those that reported lately, without a gap since `alive_since` (Unix seconds).

    `packages` is the directory of all packages. `preparations` are those of revisions of this service whose package
    needs something built on this machine first. `leaving` are nodes whose workers have to go elsewhere.
    """

    servers: Sequence[ServerReport] = ()
    alive_since: float = 0.0
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    packages: str = ""
    preparations: Mapping[int, Preparation] = field(default_factory=dict)
    leaving: Collection[str] = ()

    def is_prepared(self, revision: int) -> bool:
        """Whether nothing has to be built before workers of `revision` can start."""
        preparation = self.preparations.get(revision)
        return preparation is None or preparation.state is PreparationState.READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that history keeps."""

    action: str
    revision: int
    payload: Mapping[str, Any] = field(default_factory=dict)


Outcomes = Mapping[int, tuple[RevisionState, str]]
"""Revisions that came to an end, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next status, and what to do for it."""

    status: Status
    start: tuple[ReplicaSpec, ...] = ()
    stop: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    outcomes: Outcomes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What can be said of a candidate now: ready, failed for good, or neither, and why."""

    ready: bool = False
    failed: bool = False
    reason: str = ""
