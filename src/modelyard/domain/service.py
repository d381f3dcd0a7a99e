"""A deployed service: what a person wants of it (the spec) and the phases it goes through (the status)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from modelyard.domain.contract import Isolation
from modelyard.domain.graph import Graph, GraphPart
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.rollout import Rollout, Shadow
from modelyard.domain.routing import Batching, Limits, Resilience, ResponseCache
from modelyard.domain.scaling import Scaling
from modelyard.domain.upstreams import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many isolated workers a service may have, and what moves their number between the two.

    Shared services scale with the server pool instead, whatever the number; a least number of 0 lets their models be
    let go while nobody asks.
    """

    min: int = 1
    max: int = 1
    scaling: Scaling = field(default_factory=Scaling)

    @property
    def least(self) -> int:
        """The lowest number at any hour."""
        return min((self.min, *(window.min for window in self.scaling.schedule)))

    @property
    def most(self) -> int:
        """The highest number at any hour."""
        return max((self.max, *(window.max for window in self.scaling.schedule)))

    @property
    def may_sleep(self) -> bool:
        """Whether nothing need be in memory while nobody asks."""
        return self.least == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What each isolated worker is given: cores and memory; None sets no bound.

    Of a shared service, `memory_bytes` bounds what its model may take when it is loaded, `cpu` the threads of a run.
    `device` is where the model computes, in a worker or in the shared servers; the runtime takes it literally.
    """

    cpu: float | None = None
    memory_bytes: int | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What a service is to keep to over `window_s` seconds: the 99th percentile in ms, availability in percent."""

    latency_p99_ms: float | None = None
    availability: float | None = None
    window_s: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """The user's wish. `model` is a library name, `version` a resolved version of it.

    `alias` is the name by which the version was chosen, if it was by one; with `follow`, the platform makes a revision
    of its own when that alias points at another version. With `upstream` a server elsewhere answers: `model` is its
    name there, version and digest are those of the specification. With `graph` other services answer, and the `parts`
    of the library that it names itself; version and digest are those of the graph. `env` names, for each variable of
    its workers, the secret that holds the value.
    """

    name: str
    model: str
    version: str
    digest: str
    project: str = DEFAULT_PROJECT
    owner: str = ""
    target: str = "local"
    replicas: Replicas = field(default_factory=Replicas)
    isolation: Isolation = Isolation.SHARED
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    resilience: Resilience = field(default_factory=Resilience)
    cache: ResponseCache | None = None
    rollout: Rollout = field(default_factory=Rollout)
    shadow: Shadow | None = None
    alias: str | None = None
    follow: bool = False
    upstream: Upstream | None = None
    graph: Graph | None = None
    parts: tuple[GraphPart, ...] = ()
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    slo: Objectives | None = None

    @property
    def runs(self) -> tuple[object, ...]:
        """What its isolated workers are made of; two revisions that agree in it can share them."""
        env = tuple(sorted(self.env.items()))
        return self.model, self.version, self.digest, self.isolation, self.target, self.resources, env


class Phase(StrEnum):
    """Where a service stands."""

    PENDING = "pending"
    LOADING = "loading"
    SERVING = "serving"
    UPDATING = "updating"
    CANARY = "canary"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class Trigger(StrEnum):
    """What moves a service from one phase to the next."""

    PLANNED = "planned"
    READY = "ready"
    SPEC_CHANGED = "spec_changed"
    LOAD_FAILED = "load_failed"
    CANARY_BEGUN = "canary_begun"
    PROMOTED = "promoted"
    ABORTED = "aborted"
    DELETE_ASKED = "delete_asked"
    DRAINED = "drained"


MOVES: Final[Mapping[tuple[Phase, Trigger], Phase]] = {
    (Phase.PENDING, Trigger.PLANNED): Phase.LOADING,
    (Phase.LOADING, Trigger.READY): Phase.SERVING,
    (Phase.LOADING, Trigger.LOAD_FAILED): Phase.FAILED,
    (Phase.LOADING, Trigger.SPEC_CHANGED): Phase.LOADING,
    (Phase.SERVING, Trigger.SPEC_CHANGED): Phase.UPDATING,
    (Phase.UPDATING, Trigger.SPEC_CHANGED): Phase.UPDATING,
    (Phase.UPDATING, Trigger.READY): Phase.SERVING,
    (Phase.UPDATING, Trigger.LOAD_FAILED): Phase.SERVING,
    (Phase.UPDATING, Trigger.ABORTED): Phase.SERVING,
    (Phase.UPDATING, Trigger.CANARY_BEGUN): Phase.CANARY,
    (Phase.CANARY, Trigger.PROMOTED): Phase.UPDATING,
    (Phase.CANARY, Trigger.ABORTED): Phase.SERVING,
    (Phase.CANARY, Trigger.LOAD_FAILED): Phase.SERVING,
    (Phase.CANARY, Trigger.SPEC_CHANGED): Phase.UPDATING,
    (Phase.FAILED, Trigger.SPEC_CHANGED): Phase.LOADING,
    (Phase.PENDING, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.LOADING, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.SERVING, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.UPDATING, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.CANARY, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.FAILED, Trigger.DELETE_ASKED): Phase.DELETING,
    (Phase.DELETING, Trigger.DRAINED): Phase.DELETED,
}
