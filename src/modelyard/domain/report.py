"""The audit report: every check with its evidence, and the verdict that follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How one check ended."""

    PASSED = "passed"
    WARNING = "warning"
    NEEDS_REVIEW = "needs_review"
    FAILED = "failed"
    SKIPPED = "skipped"


class Verdict(StrEnum):
    """What follows from all checks."""

    APPROVED = "approved"
    NEEDS_REVIEW = "needs_review"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: `name` is stable (`archive.members`, `probe.finite`), `summary` one line for people.

    `evidence` is plain JSON: what was measured and against which limit. `hint` says what to change or to add.
    """

    name: str
    outcome: Outcome
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float = 0.0
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an upload was refused; `code` is that of an `UploadRefused` class."""

    code: str
    title: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All checks in the order they ran. A refused report ends with the failed check."""

    verdict: Verdict
    checks: tuple[Check, ...]
    refusal: Refusal | None = None


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """One failed check refuses; else one that needs a person asks for review; else the upload is approved."""
    outcomes = {check.outcome for check in checks}
    if Outcome.FAILED in outcomes:
        return Verdict.REFUSED
    return Verdict.NEEDS_REVIEW if Outcome.NEEDS_REVIEW in outcomes else Verdict.APPROVED
