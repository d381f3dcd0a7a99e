"""Copy a version from one platform to another: the same bytes, audited anew there, with where they come from.

What travels is the bundle as it was uploaded. The other platform receives it as any upload: its own audit decides, and
its own people approve where that is needed. The verdict and the approval here go along as evidence, in the version's
`source`, which its history keeps; they open no door.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelyard.client.documents import Version
from modelyard.client.sync import Client, OnCheck
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import ArtifactDamaged, Conflict

_BLOCK: Final = 1 << 20
_MOST_SOURCE: Final = 7000


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A version here and there. `is_new` is false when it was there already."""

    here: Version
    there: Version
    is_new: bool


def copy_version(
    here: Client, there: Client, reference: tuple[str, str], *, name: str | None = None, on_check: OnCheck | None = None
) -> Copied:
    """Bring `reference` (name and version) to the platform `there`, under `name` or its own.

    Raises:
        Conflict: it is not approved here, or the digests differ.
        ArtifactDamaged: a file that came is not the one that the version names.
        RemoteError: one of the platforms refused.
    """
    version = here.version(*reference)
    if version.state != "approved":
        raise Conflict(
            f"{version.name}:{version.version} is {version.state} here, and only approved versions are copied",
            hint=f"modelyard approve {version.name}:{version.version} first",
        )
    called = name or version.name
    before = _same_there(there, called, version.digest)
    if before is not None:
        return Copied(here=version, there=before, is_new=False)
    with tempfile.TemporaryDirectory(prefix="modelyard-copy-") as place:
        files = [_fetch(here, version, file, Path(place)) for file in version.document["files"]]
        made = there.upload(files, name=called, source=_evidence(here, version), on_check=on_check)
    if made.digest != version.digest:
        raise Conflict(
            f"the copy has the digest {made.digest}, and {version.digest} was sent",
            hint=f"modelyard show {called}:{made.version} tells what came; delete it",
        )
    return Copied(here=version, there=made, is_new=True)


def _same_there(there: Client, name: str, digest: str) -> Version | None:
    """The version of these bytes on the other platform, if it has one."""
    if not any(model["name"] == name for model in there.models(name)):
        return None
    for row in there.versions(name):
        if row["digest"] == digest and row["state"] not in ("rejected", "archived"):
            return there.version(name, str(row["version"]))
    return None


def _fetch(here: Client, version: Version, file: Mapping[str, Any], place: Path) -> Path:
    """One file of the bundle, checked against its digest as it comes."""
    path, seen = place / str(file["name"]), hashlib.sha256()
    with path.open("wb") as out:
        for block in here.file(version, file["name"], block_bytes=_BLOCK):
            seen.update(block)
            out.write(block)
    if seen.hexdigest() != str(file["sha256"]).removeprefix("sha256:"):
        raise ArtifactDamaged(
            f"{quote(file['name'])} did not come as it is stored", hint="try again; nothing was sent on"
        )
    return path


def _evidence(here: Client, version: Version) -> dict[str, object]:
    """Where it comes from and what was found there, in plain JSON that fits into an upload's `source`."""
    audit, document = version.audit, version.document
    checks = [{"name": each["name"], "outcome": each["outcome"]} for each in audit.get("checks", ())]
    evidence: dict[str, object] = {
        "kind": "copy",
        "platform": here.connection.url,
        "project": document.get("project"),
        "model": version.name,
        "version": version.version,
        "digest": version.digest,
        "verdict": audit.get("verdict"),
        "decided_by": document.get("decided_by"),
        "decided_at": document.get("decided_at"),
        "reason": str(document.get("reason") or "")[:500],
    }
    whole = {**evidence, "checks": checks}
    return whole if len(str(whole)) < _MOST_SOURCE else evidence
