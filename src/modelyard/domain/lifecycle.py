"""The life of a model version in the library, as a transition table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from modelyard.domain.errors.platform import Conflict


class VersionState(StrEnum):
    """Where a version stands. Only `APPROVED` may be deployed."""

    NEEDS_REVIEW = "needs_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    ARCHIVED = "archived"
    DELETED = "deleted"


class VersionAction(StrEnum):
    """What people do to a version."""

    APPROVE = "approve"
    REJECT = "reject"
    ARCHIVE = "archive"
    RESTORE = "restore"
    DELETE = "delete"


MOVES: Final[Mapping[tuple[VersionState, VersionAction], VersionState]] = {
    (VersionState.NEEDS_REVIEW, VersionAction.APPROVE): VersionState.APPROVED,
    (VersionState.NEEDS_REVIEW, VersionAction.REJECT): VersionState.REJECTED,
    (VersionState.APPROVED, VersionAction.REJECT): VersionState.REJECTED,
    (VersionState.REJECTED, VersionAction.APPROVE): VersionState.APPROVED,
    (VersionState.APPROVED, VersionAction.ARCHIVE): VersionState.ARCHIVED,
    (VersionState.ARCHIVED, VersionAction.RESTORE): VersionState.APPROVED,
    (VersionState.REJECTED, VersionAction.DELETE): VersionState.DELETED,
    (VersionState.ARCHIVED, VersionAction.DELETE): VersionState.DELETED,
    (VersionState.NEEDS_REVIEW, VersionAction.DELETE): VersionState.DELETED,
}


def move(state: VersionState, action: VersionAction) -> VersionState:
    """The state after `action`, or `Conflict` that lists what is possible from here."""
    after = MOVES.get((state, action))
    if after is not None:
        return after
    possible = ", ".join(a.value for (s, a) in MOVES if s is state) or "nothing"
    raise Conflict(f"a version that is {state} cannot be asked to {action}", hint=f"possible from here: {possible}")
