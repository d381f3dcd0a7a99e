"""What the API says of an upload and of the version that came of it, as plain JSON."""

from collections.abc import Mapping
from typing import Any

from modelyard.control.catalog import version_document
from modelyard.control.intake.values import Decision, Describe, Progress
from modelyard.domain.errors import ModelyardError
from modelyard.foundation.documents import to_plain


def running_document(progress: Progress) -> dict[str, Any]:
    """An upload that is being checked: the checks so far."""
    return {
        "id": progress.id,
        "state": progress.state.value,
        "project": progress.target.project,
        "model": progress.target.model,
        "checks": to_plain(list(progress.checks)),
    }


def decided_document(progress: Progress, decision: Decision, *, describe: Describe) -> dict[str, Any]:
    """An upload at its end: all checks, and the version or the problem."""
    document = running_document(progress)
    if decision.version is not None:
        document["version"] = version_document(decision.version)
    if decision.error is not None:
        document["problem"] = problem_of(decision.error, describe=describe)
    return document


def problem_of(error: ModelyardError, *, describe: Describe) -> Mapping[str, Any]:
    """The problem document of an error, as a plain dict."""
    return dict(describe(error))
