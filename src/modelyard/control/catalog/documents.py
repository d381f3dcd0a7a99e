"""What the API says of a version, as plain JSON; the upload centre and the library say the same."""

from typing import Any

from modelyard.control.catalog.values import VersionRecord
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.report import Outcome
from modelyard.foundation.documents import to_plain


def version_document(version: VersionRecord) -> dict[str, Any]:
    """A version as it goes out."""
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
        "files": [
            {"name": name, "sha256": file.sha256, "size_bytes": file.size_bytes} for name, file in version.files.items()
        ],
        "contract": to_plain(version.contract),
        "golden": to_plain(version.golden),
        "audit": to_plain(version.audit),
        "card": version.card,
        "source": dict(version.source),
        "created_at": version.created_at.isoformat(),
        "created_by": version.author_name,
        "decided_at": None if version.decided_at is None else version.decided_at.isoformat(),
        "decided_by": version.decided_by,
        "reason": version.reason or _open_questions(version),
    }


def _open_questions(version: VersionRecord) -> str:
    """What the audit wants a person to look at, while nobody has."""
    if version.state is not VersionState.NEEDS_REVIEW:
        return ""
    return "; ".join(check.summary for check in version.audit.checks if check.outcome is Outcome.NEEDS_REVIEW)
