"""Durable work: what a job can be, how it gets from one state to the next, and when it is tried again.

A job is tried until it succeeds, is refused (trying again would not help), is cancelled, or has failed its last
attempt: then it is a dead letter, kept with its reason. Losing a worker is not its fault and is counted apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NewType

from modelyard.domain.errors.platform import Conflict

JobId = NewType("JobId", str)
LEAST_PRIORITY: Final = 0
MOST_PRIORITY: Final = 9
USUAL_PRIORITY: Final = 4
MOST_ATTEMPTS: Final = 20
MOST_LOSSES: Final = 20
"""Claims of one job that may end without a word: the job may be what ends its worker."""
_MOST_DOUBLINGS: Final = 16


class JobState(StrEnum):
    """What a job is. The last four are for good, unless a person retries it."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def is_final(self) -> bool:
        """Whether nothing more becomes of it by itself."""
        return self in _FINAL


_FINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})


class JobTrigger(StrEnum):
    """What happens to a job."""

    COME_DUE = "come due"
    CLAIM = "claim"
    SUCCEED = "succeed"
    RELEASE = "release"
    """Its worker ended, in order or not, and gave it back; no attempt is counted."""
    TRY_LATER = "try later"
    REFUSE = "refuse"
    GIVE_UP = "give up"
    CANCEL = "cancel"
    RETRY = "retry"


MOVES: Final[Mapping[tuple[JobState, JobTrigger], JobState]] = {
    (JobState.SCHEDULED, JobTrigger.COME_DUE): JobState.QUEUED,
    (JobState.SCHEDULED, JobTrigger.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, JobTrigger.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, JobTrigger.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobTrigger.SUCCEED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobTrigger.RELEASE): JobState.QUEUED,
    (JobState.RUNNING, JobTrigger.TRY_LATER): JobState.SCHEDULED,
    (JobState.RUNNING, JobTrigger.REFUSE): JobState.FAILED,
    (JobState.RUNNING, JobTrigger.GIVE_UP): JobState.DEAD,
    (JobState.RUNNING, JobTrigger.CANCEL): JobState.CANCELLED,
    (JobState.FAILED, JobTrigger.RETRY): JobState.QUEUED,
    (JobState.DEAD, JobTrigger.RETRY): JobState.QUEUED,
    (JobState.CANCELLED, JobTrigger.RETRY): JobState.QUEUED,
}


def move(state: JobState, trigger: JobTrigger) -> JobState:
    """The state after `trigger`, or `Conflict` that lists what is possible from here."""
    after = MOVES.get((state, trigger))
    if after is not None:
        return after
    possible = ", ".join(t.value for (s, t) in MOVES if s is state) or "nothing"
    raise Conflict(f"a job that is {state} cannot {trigger}", hint=f"possible from here: {possible}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What is asked for. A higher `priority` goes first; `not_before` None is at once.

    `attempts` are those that may fail; the pauses between them begin at `pause_s` and double up to `longest_pause_s`.
    An attempt may take `limit_s` seconds; None is as long as the worker's settings allow.
    """

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    priority: int = USUAL_PRIORITY
    not_before: datetime | None = None
    attempts: int = 3
    pause_s: float = 2.0
    longest_pause_s: float = 300.0
    limit_s: float | None = None
    seed: int = 0


class Failure(StrEnum):
    """How an attempt ended that did not succeed."""

    ERROR = "error"
    """The work failed; another attempt may succeed."""
    REFUSED = "refused"
    """What was asked for cannot be done, however often it is tried."""
    LOST = "lost"
    """Nobody heard of the worker any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a job after a failure; with `TRY_LATER`, `after` says when."""

    trigger: JobTrigger
    after: timedelta = timedelta()


def judge(spec: JobSpec, failure: Failure, *, failed: int, lost: int) -> Verdict:
    """What becomes of a job whose attempt ended so; `failed` and `lost` count this one, since it was last (re)tried."""
    if failure is Failure.REFUSED:
        return Verdict(trigger=JobTrigger.REFUSE)
    if failure is Failure.LOST:
        if lost >= MOST_LOSSES:
            return Verdict(trigger=JobTrigger.GIVE_UP)
        return Verdict(trigger=JobTrigger.RELEASE)
    if failed >= spec.attempts:
        return Verdict(trigger=JobTrigger.GIVE_UP)
    return Verdict(trigger=JobTrigger.TRY_LATER, after=pause(spec, failed=failed))


def pause(spec: JobSpec, *, failed: int) -> timedelta:
    """How long to wait after the attempt number `failed`, counted from 1."""
    doublings = min(max(failed - 1, 0), _MOST_DOUBLINGS)
    return timedelta(seconds=min(spec.pause_s * 2**doublings, spec.longest_pause_s))
