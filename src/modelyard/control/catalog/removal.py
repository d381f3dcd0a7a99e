"""Give back the room of deleted versions: bytes that no other version names.

Runs after the deletion is committed, in a unit of work of its own: no version can be registered meanwhile, so nothing
that somebody is about to need is taken away. What a crash leaves over is swept when the upload centre opens.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from modelyard.control.catalog.lookup import package_directory
from modelyard.control.catalog.tables import model_versions, version_files
from modelyard.control.catalog.values import VersionRecord
from modelyard.control.records import Database, Transaction
from modelyard.domain.errors.platform import Conflict
from modelyard.domain.lifecycle import VersionState
from modelyard.ports.artifact_store import ArtifactStore

Users = Callable[[Transaction, VersionRecord], list[str]]


@dataclass(slots=True)
class VersionUsers:
    """Who knows what uses a version: other capabilities add a function that names its users ("service digits")."""

    ask: list[Users] = field(default_factory=list)

    def require_unused(self, tx: Transaction, version: VersionRecord) -> None:
        """`Conflict` that names what uses the version."""
        users = [user for ask in self.ask for user in ask(tx, version)]
        if users:
            raise Conflict(
                f"{version.model}:{version.version} is in use by {', '.join(users[:5])}",
                hint="deploy another version there, or undeploy it, first",
            )


def give_back_room(database: Database, *, artifacts: ArtifactStore, packages: Path, version: VersionRecord) -> None:
    """Delete the files and the package of a deleted version, unless another version has the same."""
    with database.begin() as tx:
        living = model_versions.c.state != VersionState.DELETED
        if tx.scalar(select(model_versions.c.id).where(model_versions.c.digest == version.digest, living)) is None:
            shutil.rmtree(package_directory(packages, version), ignore_errors=True)
        for file in version.files.values():
            other = (
                select(version_files.c.version_id)
                .join(model_versions, model_versions.c.id == version_files.c.version_id)
                .where(version_files.c.sha256 == file.sha256, living)
            )
            if tx.scalar(other) is None:
                artifacts.delete(file.sha256)
