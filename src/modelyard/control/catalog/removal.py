"""Give back the room of deleted versions: bytes that no other version names.

Runs after the deletion is committed, in a unit of work of its own: no version can be registered meanwhile, so nothing
that somebody is about to need is taken away. Whoever reads all that is stored (a backup) holds removals back until it
is done. What a crash leaves over is swept when the upload centre opens.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from modelyard.control.catalog.lookup import package_directory
from modelyard.control.catalog.tables import model_versions, version_files
from modelyard.control.catalog.values import VersionRecord
from modelyard.control.records import Database, Transaction
from modelyard.domain.digests import PREFIX
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


@dataclass(frozen=True, slots=True)
class StoredNames:
    """What the living versions name: hex SHA-256 of files, and of bundles that have a package."""

    files: frozenset[str]
    packages: frozenset[str]


def stored_names(connection: Connection | Transaction) -> StoredNames:
    """Everything that has to be stored. A deleted version names nothing any more."""
    living = model_versions.c.state != VersionState.DELETED
    files = select(version_files.c.sha256).join(model_versions, model_versions.c.id == version_files.c.version_id)
    packages = select(model_versions.c.digest).where(living, model_versions.c.has_package)
    return StoredNames(
        files=frozenset(connection.scalars(files.where(living))),
        packages=frozenset(digest.removeprefix(PREFIX) for digest in connection.scalars(packages)),
    )


class Removals:
    """Gives back the room of deleted versions: at once, or when nobody holds removals back any more."""

    def __init__(self, database: Database, *, artifacts: ArtifactStore, packages: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._packages = packages
        self._lock = threading.Lock()
        self._holders = 0
        self._postponed: list[VersionRecord] = []

    @property
    def is_held(self) -> bool:
        """Whether somebody holds removals back now."""
        return self._holders > 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing that is stored is removed inside the block; what was asked for meanwhile is removed after it."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                due = [] if self._holders else self._postponed
                if due:
                    self._postponed = []
            for version in due:
                self._give_back(version)

    def give_back(self, version: VersionRecord) -> None:
        """Delete the files and the package of a deleted version, unless another version has the same."""
        with self._lock:
            if self._holders:
                self._postponed.append(version)
                return
        self._give_back(version)

    def _give_back(self, version: VersionRecord) -> None:
        with self._database.begin() as tx:
            living = model_versions.c.state != VersionState.DELETED
            if tx.scalar(select(model_versions.c.id).where(model_versions.c.digest == version.digest, living)) is None:
                shutil.rmtree(package_directory(self._packages, version), ignore_errors=True)
            for file in version.files.values():
                other = (
                    select(version_files.c.version_id)
                    .join(model_versions, model_versions.c.id == version_files.c.version_id)
                    .where(version_files.c.sha256 == file.sha256, living)
                )
                if tx.scalar(other) is None:
                    self._artifacts.delete(file.sha256)
