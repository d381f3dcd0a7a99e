"""Bodies of the service routes."""

from datetime import time
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from modelyard.control.deployments.graph_fields import GraphBody
from modelyard.control.deployments.upstream_fields import UpstreamBody
from modelyard.control.deployments.wishes import MOST_REPLICAS, ShadowWish, Wish
from modelyard.domain.contract import Isolation
from modelyard.domain.names import NAME_PATTERN
from modelyard.domain.rollout import CanaryMatch, Guard, Rollout, Strategy, Watched
from modelyard.domain.routing import Batching, Limits, Resilience, ResponseCache
from modelyard.domain.scaling import DAYS, Scaling, Window
from modelyard.domain.service import Replicas

NAME: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
IN_FLIGHT: Final = 8.0
"""Requests in flight a worker that a range of replicas follows where nothing else is said."""
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=64)]


class WindowBody(BaseModel):
    """Other bounds for some hours of some days; an end before the start lies in the next day."""

    model_config = ConfigDict(extra="forbid")

    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = Field(default=list(DAYS), min_length=1)
    start: Clock = Field(description="As 08:00.")
    end: Clock = Field(description="As 18:00.")
    min: int = Field(ge=0, le=MOST_REPLICAS)
    max: int = Field(ge=1, le=MOST_REPLICAS)
    timezone: str = Field(default="UTC", max_length=64, description="As Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no time zone of that name is known; write it as Europe/Berlin, or UTC") from error
        return value

    def window(self) -> Window:
        """As the domain has it."""
        return Window(
            days=tuple(self.days),
            start=time.fromisoformat(self.start),
            end=time.fromisoformat(self.end),
            min=self.min,
            max=self.max,
            timezone=self.timezone,
        )


class ReplicasBody(BaseModel):
    """How many isolated workers, and what moves their number; targets are for one worker."""

    model_config = ConfigDict(extra="forbid")

    min: int = Field(default=1, ge=0, le=MOST_REPLICAS, description="0: nothing is kept in memory while nobody asks.")
    max: int | None = Field(
        default=None, ge=1, le=MOST_REPLICAS, description="Without it, as many as `min`, and at least 1."
    )
    target_in_flight: float | None = Field(default=None, gt=0, le=1e6, description="Of a range without any target: 8.")
    target_rate: float | None = Field(default=None, gt=0, le=1e9, description="Requests a second.")
    target_latency_ms: float | None = Field(default=None, gt=0, le=1e7, description="The 95th percentile.")
    idle_s: float = Field(default=300.0, ge=1, le=30 * 86_400, description="Time without a request before 0.")
    stabilise_s: float = Field(default=60.0, ge=0, le=86_400, description="How long fewer have to be right.")
    cooldown_s: float = Field(default=5.0, ge=0, le=86_400, description="Rest between two changes.")
    schedule: list[WindowBody] = Field(default=[], max_length=64)

    def value(self) -> Replicas:
        """As the domain has it. A range without a target follows the requests in flight."""
        most = max(1, self.min) if self.max is None else self.max
        targets = (self.target_in_flight, self.target_rate, self.target_latency_ms)
        follows = most > max(1, self.min) and targets == (None, None, None)
        scaling = Scaling(
            target_in_flight=IN_FLIGHT if follows else self.target_in_flight,
            target_rate=self.target_rate,
            target_latency_ms=self.target_latency_ms,
            idle_s=self.idle_s,
            stabilise_s=self.stabilise_s,
            cooldown_s=self.cooldown_s,
            schedule=tuple(window.window() for window in self.schedule),
        )
        return Replicas(min=self.min, max=most, scaling=scaling)


class LimitsBody(BaseModel):
    """Bounds of the service; what is left out is the server's default."""

    model_config = ConfigDict(extra="forbid")

    requests_per_s: float | None = Field(default=None, gt=0, le=1e9)
    deadline_ms: int | None = Field(default=None, ge=1, le=86_400_000)
    max_in_flight: int | None = Field(default=None, ge=1, le=1_000_000)


class BatchingBody(BaseModel):
    """How far requests are gathered into one run."""

    model_config = ConfigDict(extra="forbid")

    max_size: int = Field(default=64, ge=1, le=65_536)
    max_wait_ms: float = Field(default=0.0, ge=0, le=10_000)


class ResilienceBody(BaseModel):
    """What is done when an isolated worker fails, is silent or slow; what is left out has the default."""

    model_config = ConfigDict(extra="forbid")

    idempotent: bool = Field(default=True, description="false: what a worker has begun is never run again.")
    retries: int = Field(default=1, ge=0, le=4, description="Tries on other workers, within the retry budget.")
    retry_gain: float = Field(default=0.1, ge=0, le=1, description="Part of a retry that each success allows.")
    try_timeout_ms: int | None = Field(default=None, ge=10, le=86_400_000, description="A longer run counts as failed.")
    hedge: bool = Field(default=False, description="Send a second copy after the 95th percentile of run times.")
    hedge_share: float = Field(default=0.05, gt=0, le=0.5, description="At most this share of all runs.")
    breaker_failures: int = Field(default=8, ge=1, le=10_000, description="Failures in a row that open the circuit.")
    eject: bool = Field(default=True, description="Set workers aside that fail or are slow where others are not.")
    slow_factor: float = Field(default=3.0, ge=1.5, le=1000, description="How many times slower is slow.")


class CacheBody(BaseModel):
    """Answers that are kept in each model server and given again for the same question."""

    model_config = ConfigDict(extra="forbid")

    ttl_s: float = Field(gt=0, le=30 * 86_400, description="Seconds after which an answer is made anew.")
    max_entries: int = Field(default=10_000, ge=1, le=10_000_000)
    max_bytes: int = Field(default=64 << 20, ge=1024, le=1 << 40)


class MatchBody(BaseModel):
    """Requests that go to the canary whatever its share: all headers have these values, and the key is one of these."""

    model_config = ConfigDict(extra="forbid")

    headers: dict[HeaderName, Annotated[str, Field(max_length=256)]] = Field(default={}, max_length=8)
    keys: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=64, description="Ids of keys.")


class RolloutBody(BaseModel):
    """The way to a new revision."""

    model_config = ConfigDict(extra="forbid")

    strategy: Strategy = Field(default=Strategy.ROLLING, description="All at once when it is ready, or by shares.")
    steps: list[Annotated[int, Field(ge=0, le=99)]] = Field(
        default=[], max_length=32, description="A canary's shares in percent, rising; without them 10 and 50."
    )
    step_s: float | None = Field(
        default=None, ge=1, le=30 * 86_400, description="Seconds at each share, with `guard: off`."
    )
    guard: Guard = Field(default=Guard.WATCH, description="Who moves a canary: auto, watch (shows), off.")
    watch: list[Watched] = Field(default=list(Watched), min_length=1, max_length=3)
    margins: dict[Watched, float] = Field(
        default={},
        description="Harm that the guard excludes before it promotes, in place of the platform's: errors and"
        " predictions as shares, latency as a factor less one.",
        examples=[{"errors": 0.02, "latency": 1.0}],
    )
    sticky: HeaderName | None = Field(default=None, description="The header whose value decides on the side.")
    matches: list[MatchBody] = Field(default=[], max_length=16)
    max_surge: int = Field(default=1, ge=0, le=MOST_REPLICAS, description="Workers above the wanted number.")
    max_unavailable: int = Field(default=0, ge=0, le=MOST_REPLICAS, description="Ready workers below it.")

    def value(self) -> Rollout:
        """The same in the terms of the domain."""
        return Rollout(
            strategy=self.strategy,
            steps=tuple(self.steps),
            step_s=self.step_s,
            guard=self.guard,
            watch=tuple(dict.fromkeys(self.watch)),
            margins=self.margins,
            sticky=None if self.sticky is None else self.sticky.lower(),
            matches=tuple(
                CanaryMatch(headers={k.lower(): v for k, v in each.headers.items()}, keys=tuple(each.keys))
                for each in self.matches
            ),
            max_surge=self.max_surge,
            max_unavailable=self.max_unavailable,
        )


class ShadowBody(BaseModel):
    """A version that is sent copies of requests; nobody waits for its answers."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(default=None, description="Without it, the service's model.")
    version: Name | None = Field(default=None, description="Without it and `alias`, the champion or newest.")
    alias: Name | None = None
    percent: int = Field(default=100, ge=0, le=100, description="Share of the requests; 0 ends the shadow.")

    def value(self) -> ShadowWish:
        """The same in the terms of the service."""
        return ShadowWish(model=self.model, version=self.version, alias=self.alias, percent=self.percent)


class ServiceBody(BaseModel):
    """What a service is to be. What is left out stays as it is, or has its default in a new service."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(default=None, description="A model of the library; a new service needs one.")
    version: Name | None = Field(
        default=None, description="Its version; without it and `alias`, the champion or newest."
    )
    alias: Name | None = Field(default=None, description="Its alias; resolved now and recorded.")
    follow: bool = Field(default=False, description="Make a new revision whenever the alias points elsewhere.")
    target: Name | None = Field(default=None, description="The place where it runs; `local` in a new service.")
    owner: str | None = Field(default=None, max_length=63)
    replicas: ReplicasBody | Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | None = None
    isolation: Isolation | None = Field(default=None, description="shared or process; default: the least it needs.")
    device: str | None = Field(
        default=None,
        pattern=r"^(auto|cpu|(cuda|gpu|npu)(:[0-9]{1,3})?)$",
        description="Where its runtime computes: auto, cpu, cuda, cuda:1, gpu, npu. One that is not there is refused.",
    )
    limits: LimitsBody | None = None
    batching: BatchingBody | None = None
    resilience: ResilienceBody | None = None
    cache: CacheBody | Literal["off"] | None = Field(default=None, description="A response cache; default: none.")
    rollout: RolloutBody | None = Field(default=None, description="The way to this version; default: at once.")
    shadow: ShadowBody | None = None
    upstream: UpstreamBody | None = Field(default=None, description="A server elsewhere, in place of a model.")
    graph: GraphBody | None = Field(default=None, description="Other services as one, in place of a model.")
    why: str = Field(default="", max_length=500, description="Why, for history.")
    retry: bool = Field(default=False, description="Try a version again that was given up or rolled back before.")

    def wish(self, name: str, project: str) -> Wish:
        """The same in the terms of the service."""
        limits, batching = self.limits, self.batching
        return Wish(
            name=name,
            project=project,
            model=self.model,
            version=self.version,
            alias=self.alias,
            follow=self.follow,
            target=self.target,
            owner=self.owner,
            replicas=_replicas(self.replicas),
            isolation=self.isolation,
            device=self.device,
            limits=None if limits is None else Limits(**limits.model_dump()),
            batching=None if batching is None else Batching(**batching.model_dump()),
            resilience=None if self.resilience is None else Resilience(**self.resilience.model_dump()),
            cache=ResponseCache(**self.cache.model_dump()) if isinstance(self.cache, CacheBody) else self.cache,
            rollout=None if self.rollout is None else self.rollout.value(),
            shadow=None if self.shadow is None else self.shadow.value(),
            upstream=None if self.upstream is None else self.upstream.value(name),
            graph=None if self.graph is None else self.graph.value(),
            why=self.why,
            retry=self.retry,
        )


class NewService(ServiceBody):
    """A service with its name."""

    name: Name
    project: Name | None = Field(default=None, description="Default: the caller's own, or `?project=`.")


class RollbackBody(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(extra="forbid")

    revision: int | None = Field(default=None, ge=1, le=1 << 31, description="Without it, the last that was good.")
    why: str = Field(default="", max_length=400)


class MoveBody(BaseModel):
    """Why a rollout is moved, and what it was decided for."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(default="", max_length=400)
    revision: int | None = Field(default=None, ge=1, le=1 << 31, description="Refuse when another one is on its way.")


class PromoteBody(MoveBody):
    """How far."""

    to: Literal["end", "next"] = Field(default="end", description="All of the traffic, or the next share.")


class ManifestsBody(BaseModel):
    """Manifests that are planned or applied together."""

    model_config = ConfigDict(extra="forbid")

    documents: list[Any] = Field(description="Manifests: apiVersion, kind, metadata, spec.", max_length=200)
    retry: bool = Field(default=False, description="Try versions again that were given up or rolled back before.")
    fingerprint: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Apply only this plan, as `plan` gave it."
    )


def _replicas(body: ReplicasBody | int | None) -> Replicas | None:
    match body:
        case None:
            return None
        case int():
            return Replicas(min=body, max=body)
        case _:
            return body.value()
