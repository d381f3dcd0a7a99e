"""From a refusal in a report back to the error of its code, so that one table maps both to an answer."""

from collections.abc import Iterator

from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.edge import BodyTooLarge
from modelyard.domain.errors.uploads import UploadRefused
from modelyard.domain.report import AuditReport, Outcome


def error_of(report: AuditReport) -> ModelyardError:
    """The error that a refused report stands for; its details name the check that failed and what it saw."""
    refusal = report.refusal
    if refusal is None:
        return UploadRefused("the audit refused this upload", hint="read the failed check")
    kinds = {kind.code: kind for kind in _kinds()}
    failed = [check for check in report.checks if check.outcome is Outcome.FAILED]
    details = [{"check": check.name, "evidence": dict(check.evidence)} for check in failed[-1:]]
    return kinds.get(refusal.code, UploadRefused)(refusal.detail, hint=refusal.hint, details=details)


def _kinds() -> Iterator[type[ModelyardError]]:
    waiting: list[type[ModelyardError]] = [UploadRefused]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting.extend(kind.__subclasses__())
    yield BodyTooLarge
