"""Bodies of the service routes."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.deployments.service import MOST_REPLICAS, Wish
from modelyard.domain.contract import Isolation
from modelyard.domain.names import NAME_PATTERN
from modelyard.domain.routing import Batching, Limits, Resilience
from modelyard.domain.service import Replicas

NAME: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, Field(pattern=NAME, max_length=63)]


class ReplicasBody(BaseModel):
    """How many isolated workers."""

    model_config = ConfigDict(extra="forbid")

    min: int = Field(default=1, ge=1, le=MOST_REPLICAS)
    max: int | None = Field(default=None, ge=1, le=MOST_REPLICAS, description="Without it, as many as `min`.")


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


class ServiceBody(BaseModel):
    """What a service is to be."""

    model_config = ConfigDict(extra="forbid")

    model: Name = Field(description="A model of the library.")
    version: Name | None = Field(
        default=None, description="Its version; without it and `alias`, the champion or newest."
    )
    alias: Name | None = Field(default=None, description="Its alias; resolved now and recorded.")
    target: Name = Field(default="local", description="The orchestrator.")
    owner: str = Field(default="", max_length=63)
    replicas: ReplicasBody | Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | None = None
    isolation: Isolation | None = Field(default=None, description="shared or process; default: the least it needs.")
    limits: LimitsBody = LimitsBody()
    batching: BatchingBody = BatchingBody()
    resilience: ResilienceBody = ResilienceBody()
    why: str = Field(default="", max_length=500, description="Why, for history.")
    retry: bool = Field(default=False, description="Try a version again that did not become ready before.")

    def wish(self, name: str, project: str) -> Wish:
        """The same in the terms of the service."""
        limits, batching = self.limits, self.batching
        return Wish(
            name=name,
            project=project,
            model=self.model,
            version=self.version,
            alias=self.alias,
            target=self.target,
            owner=self.owner,
            replicas=_replicas(self.replicas),
            isolation=self.isolation,
            limits=Limits(
                requests_per_s=limits.requests_per_s,
                deadline_ms=limits.deadline_ms,
                max_in_flight=limits.max_in_flight,
            ),
            batching=Batching(max_size=batching.max_size, max_wait_ms=batching.max_wait_ms),
            resilience=Resilience(**self.resilience.model_dump()),
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


def _replicas(body: ReplicasBody | int | None) -> Replicas | None:
    match body:
        case None:
            return None
        case int():
            return Replicas(min=body, max=body)
        case _:
            return Replicas(min=body.min, max=body.min if body.max is None else body.max)
