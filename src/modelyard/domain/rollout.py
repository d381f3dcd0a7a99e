"""How a service gets from the revision that answers to the one that is wanted: the way, as its spec says it.

The spec names the goal; a rollout is the way there. What was reached of it is status, not spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from modelyard.domain.contract import Isolation

CANARY_STEPS: Final = (10, 50)
"""Shares of a canary that names none, in percent."""


class Strategy(StrEnum):
    """How traffic moves: at once when everything is ready, worker by worker where there are workers, or by shares."""

    ROLLING = "rolling"
    CANARY = "canary"


class Guard(StrEnum):
    """Who moves a canary: the platform by what it measures, a person who is shown that, or a person or a clock."""

    AUTO = "auto"
    WATCH = "watch"
    OFF = "off"


class Watched(StrEnum):
    """What a guard compares between canary and stable."""

    ERRORS = "errors"
    LATENCY = "latency"
    PREDICTIONS = "predictions"


GREATEST_MARGINS: Final[Mapping[Watched, float]] = {
    Watched.ERRORS: 1.0,
    Watched.LATENCY: 10.0,
    Watched.PREDICTIONS: 1.0,
}
"""A share of requests, a factor less one, a share of the predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryMatch:
    """Requests that go to the canary whatever its share.

    All `headers` (names in lower case) must have these values, and the request's key must be one of `keys` (ids) where
    some are named. A match that names neither matches nothing and is refused.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The way to a new revision.

    `steps` are the canary's shares in percent, rising, each below 100; after the last one comes all of the traffic.
    `step_s` moves from step to step by the clock, with `guard` off only. `sticky` is the header whose value decides to
    which side a request goes, so that a session does not change sides at random. `max_surge` and `max_unavailable`
    bound how many isolated workers there may be above, and may be ready below, the number that is wanted. `margins` are
    the harm that the guard excludes before it promotes, by what is watched; what is not named has the platform's.
    """

    strategy: Strategy = Strategy.ROLLING
    steps: tuple[int, ...] = ()
    step_s: float | None = None
    guard: Guard = Guard.WATCH
    watch: tuple[Watched, ...] = (Watched.ERRORS, Watched.LATENCY, Watched.PREDICTIONS)
    margins: Mapping[Watched, float] = field(default_factory=dict)
    sticky: str | None = None
    matches: tuple[CanaryMatch, ...] = ()
    max_surge: int = 1
    max_unavailable: int = 0

    @property
    def shares(self) -> tuple[int, ...]:
        """The canary's shares, also where none are named."""
        return self.steps or CANARY_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A version that is sent copies of requests, whose answers nobody waits for. `percent` is the share copied."""

    model: str
    version: str
    digest: str
    percent: int = 100
    isolation: Isolation = Isolation.SHARED
