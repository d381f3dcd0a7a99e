"""Where a service stands: the values that are stored. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from modelyard.domain.service import Phase, ServiceSpec

NEXT_TABLE: Final = 0
"""In `Status.awaiting`: the table that is about to be published; saving the status puts its revision here."""


class RevisionState(StrEnum):
    """How far a revision came."""

    PENDING = "pending"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class PreparationState(StrEnum):
    """How far a preparation is."""

    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Where the building of what workers need stands, since `at` (Unix seconds); `reason` is what a person is told."""

    state: PreparationState
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One numbered wish: the whole spec, who had it, when (Unix seconds) and why."""

    number: int
    spec: ServiceSpec
    actor: str
    why: str
    created_at: float
    state: RevisionState = RevisionState.PENDING
    reason: str = ""
    live_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutProgress:
    """How far traffic has moved to `revision`.

    A canary stands at `step` of its spec's shares with `weight` percent since `since` (Unix seconds, from when all
    servers had taken that over). Where workers are exchanged one by one, `step` is how many of the new ones answer, and
    `weight` their part of all. `paused` rollouts are moved by people only; `reason` says why it stands where it does.
    """

    revision: int
    step: int
    weight: int
    since: float
    paused: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A revision without traffic that is still loaded, until `until` (Unix seconds): going back to it loads nothing."""

    revision: int
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The last change of the number of workers that followed the load: when (Unix seconds), to what, and why."""

    at: float
    wanted: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the platform does about a service; ours, never the user's.

    `goal` is the revision that is wanted, `live` the one with the traffic, `candidate` the one being made ready beside
    it since `since`, and `rollout` how much of the traffic that has already. `at_once` is a revision that takes it all
    as soon as it is ready, whatever its rollout says: somebody went back to it. `returning` says why a candidate that
    has replaced some workers is being undone.

    `awaiting` is the table whose acknowledgement by all servers ends the present step; `taking_over` is the revision
    that is live from then on, `replaced` the one that was before. `draining` revisions have no traffic any more and
    wait for the same; `warm` ones are kept loaded for a while after they were live.

    `workers` are the addresses of isolated workers by revision; a revision that needs some is not routed before they
    are known. `homes` names the revision whose workers another one uses, for going back and for changes that leave the
    workers as they are; `counts` is how many workers a home is to have on the way or while it is kept warm, `wanted`
    how many the service is to have within the bounds of its spec (None: the least), `scaled` when the load changed it.

    `failed` revisions are not tried again, `rejected` digests are those that were given up or rolled back, with the
    reasons in `rejections`. `asked` is what a person asked for last: a rollback changes the goal and not this, so that
    the same manifest applied again changes nothing. `told` is the split of the traffic that history knows, by revision;
    empty: `live` has all of it. An `unloaded` service keeps all of this and is held nowhere until
    somebody loads it, or deploys another revision.
    """

    phase: Phase = Phase.PENDING
    reason: str = ""
    goal: int
    live: int | None = None
    candidate: int | None = None
    since: float = 0.0
    rollout: RolloutProgress | None = None
    at_once: int | None = None
    returning: str = ""
    awaiting: int | None = None
    taking_over: int | None = None
    replaced: int | None = None
    draining: tuple[int, ...] = ()
    warm: tuple[Warm, ...] = ()
    failed: tuple[int, ...] = ()
    rejected: tuple[str, ...] = ()
    rejections: Mapping[str, str] = field(default_factory=dict)
    asked: ServiceSpec | None = None
    workers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    homes: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    wanted: int | None = None
    unloaded: bool = False
    scaled: Scaled | None = None
    told: Mapping[str, int] = field(default_factory=dict)

    def workers_of(self, revision: int) -> tuple[str, ...]:
        """Addresses of the workers of `revision`, empty when it has none."""
        return self.workers.get(str(revision), ())

    @property
    def kept(self) -> tuple[int, ...]:
        """Revisions that are loaded or being loaded: live, candidate, warm, draining."""
        warm = [each.revision for each in self.warm]
        return tuple(n for n in dict.fromkeys((self.live, self.candidate, *warm, *self.draining)) if n is not None)

    def home(self, revision: int) -> int:
        """The revision after which the workers that `revision` uses are named."""
        return self.homes.get(str(revision), revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service as the reconciler sees it: its status and the revisions that the status names."""

    project: str
    name: str
    status: Status
    revisions: Mapping[int, Revision]

    def spec(self, revision: int) -> ServiceSpec:
        """The spec of a revision that the status names."""
        return self.revisions[revision].spec
