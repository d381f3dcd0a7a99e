"""The routing table: everything a model server needs to know, published whole and versioned by the control plane.

A server holds the table it was given last, also on its own disk, and acts on nothing else. It never takes an older
one. Backends with `weight` 0 are to be loaded, warmed and checked with their golden request, but get no traffic: that
is how a new revision becomes ready before it answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.domain.access import KeyRecord, ProjectQuota
from modelyard.domain.contract import Isolation
from modelyard.domain.deferred import DeferredRules
from modelyard.domain.graph import Graph, GraphPart
from modelyard.domain.issuers import Issuer
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.sketches import ShadowSketch, Sketch
from modelyard.domain.upstreams import Upstream, UpstreamRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one service; None means the server's default."""

    requests_per_s: float | None = None
    deadline_ms: int | None = None
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How far requests are gathered into one run. `max_wait_ms` 0 gathers only what is there already."""

    max_size: int = 64
    max_wait_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """What is done when an isolated worker fails, is silent or slow.

    A prediction may be run twice unless `idempotent` is false; then only what no worker has begun goes to another.
    `retries` is how often a run that failed through no fault of its input is tried on another worker, while the budget
    allows: each failure takes a token, each success gives `retry_gain` of one. `try_timeout_ms` counts a longer run as
    failed. `hedge` sends a second copy after the 95th percentile of run times, for at most `hedge_share` of all runs.
    The circuit opens after `breaker_failures` failures in a row of the workers, whatever the worker. `eject` sets aside
    workers that fail, or are `slow_factor` times slower, where their peers are not; never more than half of them.
    """

    idempotent: bool = True
    retries: int = 1
    retry_gain: float = 0.1
    try_timeout_ms: int | None = None
    hedge: bool = False
    hedge_share: float = 0.05
    breaker_failures: int = 8
    eject: bool = True
    slow_factor: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCache:
    """How long, and how much of, answers are kept in each process: the oldest use goes first."""

    ttl_s: float
    max_entries: int = 10_000
    max_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One model version that may answer for a service.

    `package` is the directory of the `ServingPackage`. `workers` are Unix socket paths of isolated model workers, in
    use when the isolation is `process`; `isolation` None means that of the route. `weight` is the share of traffic, in
    parts of the sum over all backends. `shadow_percent` of the requests are copied to it, off the response path. With
    `upstream` a server elsewhere answers, with `graph` other services and `parts`, and there is no package.
    In the listening process, `memory_bytes` bounds what the model may take when it is loaded, `threads` one run.
    """

    model: str
    version: str
    digest: str
    package: str
    revision: int
    weight: int = 100
    workers: tuple[str, ...] = ()
    isolation: Isolation | None = None
    device: str = "auto"
    shadow_percent: int = 0
    upstream: Upstream | None = None
    graph: Graph | None = None
    parts: tuple[GraphPart, ...] = ()
    memory_bytes: int | None = None
    threads: int | None = None

    def isolation_in(self, route: "ServiceRoute") -> Isolation:
        """Where it runs: a revision may be isolated while the one before it is not."""
        return route.isolation if self.isolation is None else self.isolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Requests that go to `revision` before any weight is looked at.

    All `headers` (names in lower case) have these values, and the key is one of `keys` (ids) where some are named.
    """

    revision: int
    headers: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoute:
    """A service and what answers for it. `revision` is the deployment revision that is the goal.

    The first of `matches` that fits decides, else the weights; `sticky` is the header whose value is then hashed onto
    them. `watched` asks the servers for figures of each revision apart, `scaled` for what the service has to do. A
    service `on_demand` may be let go after `idle_s` without a request, and is loaded again by the next one.
    One that is not `loaded` is known and held nowhere: its backends say what would answer.
    """

    name: str
    revision: int
    backends: tuple[Backend, ...]
    project: str = DEFAULT_PROJECT
    isolation: Isolation = Isolation.SHARED
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    matches: tuple[Match, ...] = ()
    sticky: str | None = None
    watched: bool = False
    resilience: Resilience = field(default_factory=Resilience)
    cache: ResponseCache | None = None
    loaded: bool = True
    scaled: bool = False
    on_demand: bool = False
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Which lines model servers log (Triton, logging extension): each severity by itself, details from level 1 on."""

    log_info: bool = True
    log_warning: bool = True
    log_error: bool = True
    log_verbose_level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A secret as it lies on disk and travels in tables: only whoever has the sealing key can open `sealed`."""

    project: str
    name: str
    sealed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """All services, all keys, and whose tokens count. `auth_required` false means that neither is asked for.

    `secrets` are those that the services name, sealed; `upstreams` holds for all services that are answered elsewhere.
    `logging` None leaves each server's own level.
    `model_memory_bytes` is what models that are held on demand may take in each server; None does not bound it.
    `deferred` bounds requests that are answered later.
    """

    revision: int
    services: tuple[ServiceRoute, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    quotas: tuple[ProjectQuota, ...] = ()
    auth_required: bool = False
    secrets: tuple[SealedSecret, ...] = ()
    upstreams: UpstreamRules = field(default_factory=UpstreamRules)
    logging: LogSettings | None = None
    model_memory_bytes: int | None = None
    deferred: DeferredRules = field(default_factory=DeferredRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """What one server says of one backend. `state` is loading, ready, failed or unloaded; `reason` explains failed.

    `device` is where it runs ("cpu", "cuda:0"), empty until it is loaded.
    `asleep` is true while a model that is held on demand is not in memory.
    """

    project: str
    service: str
    version: str
    digest: str
    revision: int
    state: str
    reason: str = ""
    load_s: float | None = None
    memory_bytes: int | None = None
    device: str = ""
    asleep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """What one service had to do on one server since the last report: means, and the 95th percentile of latencies.

    `waiting` requests have no worker at all; `quiet_s` is the time since the last request.
    """

    project: str
    service: str
    in_flight: float
    rate: float
    latency_ms: float | None
    waiting: int
    quiet_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """A model server's heartbeat and acknowledgement of a table.

    `table_refused` says why the newest table that it was offered is not in effect: it names the field.
    """

    server: str
    pid: int
    started_at: float
    table_revision: int
    backends: tuple[BackendStatus, ...] = ()
    in_flight: int = 0
    table_refused: str = ""
    sketches: tuple[Sketch, ...] = ()
    shadows: tuple[ShadowSketch, ...] = ()
    loads: tuple[ServiceLoad, ...] = ()
