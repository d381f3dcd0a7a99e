"""What the API says of an upload and of the version that came of it, as plain JSON."""

from collections.abc import Mapping
from typing import Any

from modelyard.control.catalog import VersionRecord
from modelyard.control.intake.values import Decision, Describe, Progress
from modelyard.domain.errors import ModelyardError
from modelyard.foundation.documents import to_plain


def version_document(version: VersionRecord) -> dict[str, Any]:
    """A new version: name, version, digest, state, and the audit with every check."""
    return {
        "name": version.model,
        "project": version.project,
        "version": version.version,
        "digest": version.digest,
        "state": version.state.value,
        "format": version.format.value,
        "task": version.task.value,
        "library": version.library,
        "isolation": version.isolation.value,
        "size_bytes": version.size_bytes,
        "aliases": list(version.aliases),
        "audit": to_plain(version.audit),
        "contract": to_plain(version.contract),
        "golden": to_plain(version.golden),
        "files": [
            {"name": name, "sha256": file.sha256, "size_bytes": file.size_bytes} for name, file in version.files.items()
        ],
        "created_at": version.created_at.isoformat(),
        "created_by": version.author_name,
    }


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
