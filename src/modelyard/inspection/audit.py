"""The running list of checks: each is timed, reported as it ends, and a refusal ends the list.

A parser says what is wrong by raising a class of `domain.errors.uploads`; here it becomes the failed check and the
refusal. Whatever else hostile bytes make a parser raise is a refusal too (fail closed), with a text of its own: a gap
in a parser never becomes an accepted file or a crash of the caller.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from modelyard.domain.errors.uploads import UploadRefused, WeightsFormat
from modelyard.domain.report import AuditReport, Check, Outcome, Refusal, verdict_of

_UNREADABLE = (ArithmeticError, LookupError, ValueError, TypeError, EOFError, RecursionError, MemoryError)


@dataclass(slots=True)
class Finding:
    """What a check found, filled in while it runs."""

    summary: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome = Outcome.PASSED
    hint: str = ""

    def say(self, summary: str, /, **evidence: object) -> None:
        """The line for people, and what was measured against which limit."""
        self.summary = summary
        self.evidence.update(evidence)

    def warn(self, summary: str, *, hint: str = "") -> None:
        """Let it pass, and say what to look at."""
        self.summary, self.hint, self.outcome = summary, hint, Outcome.WARNING


class Audit:
    """All checks of one inspection. `on_check` hears each when it ends."""

    def __init__(self, on_check: Callable[[Check], None]) -> None:
        self._on_check = on_check
        self.checks: list[Check] = []
        self.refusal: Refusal | None = None

    @contextmanager
    def check(self, name: str) -> Iterator[Finding]:
        """Run one check in the `with` block; an `UploadRefused` in it is recorded and raised again."""
        finding = Finding()
        started = time.perf_counter()
        try:
            try:
                yield finding
            except _UNREADABLE as error:
                raise WeightsFormat(
                    f"the file could not be read to its end ({type(error).__name__})",
                    hint="write it again with the library that made it, and upload that",
                ) from error
        except UploadRefused as error:
            finding.summary, finding.hint, finding.outcome = error.detail, error.hint, Outcome.FAILED
            finding.evidence["code"] = error.code
            if error.details:
                finding.evidence["details"] = [dict(detail) for detail in error.details]
            self.refusal = Refusal(code=error.code, title=error.title, detail=error.detail, hint=error.hint)
            raise
        finally:
            self.record(
                Check(
                    name=name,
                    outcome=finding.outcome,
                    summary=finding.summary or "as it should be",
                    evidence=finding.evidence,
                    duration_s=round(time.perf_counter() - started, 6),
                    hint=finding.hint,
                )
            )

    def record(self, check: Check) -> None:
        """Take a check that another process made, and pass it on."""
        self.checks.append(check)
        self._on_check(check)

    def refuse(self, refusal: Refusal) -> None:
        """A child's refusal; its failed check is added when the child did not send one."""
        self.refusal = refusal
        if not any(check.outcome is Outcome.FAILED for check in self.checks):
            self.record(_failed(refusal))

    def report(self) -> AuditReport:
        """The verdict over everything so far."""
        return AuditReport(verdict=verdict_of(self.checks), checks=tuple(self.checks), refusal=self.refusal)


def _failed(refusal: Refusal) -> Check:
    return Check(
        name=f"audit.{refusal.code}",
        outcome=Outcome.FAILED,
        summary=refusal.detail,
        evidence={"code": refusal.code},
        hint=refusal.hint,
    )
