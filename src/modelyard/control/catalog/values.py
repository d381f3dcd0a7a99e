"""What the library speaks of: models, their immutable versions, and what intake hands over for a new one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelyard.control.identity import Actor, Visibility
from modelyard.domain.contract import Golden, Isolation, ModelContract, ModelFormat, Task
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.report import AuditReport


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One uploaded file, kept in the artifact store under its plain hex SHA-256."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What intake registers once the verdict is not a refusal and every file is in the artifact store.

    `version` None takes the next number. `has_package` says that a serving package lies in the packages directory
    under the digest. `source` is where it came from, plain JSON (`{"kind": "upload"}`, `{"kind": "mlflow", "run": …}`);
    `card` is the README as text; `description` is used when the model is new.
    """

    project: str
    model: str
    digest: str
    format: ModelFormat
    audit: AuditReport
    files: Mapping[str, StoredFile]
    author: Actor
    version: str | None = None
    task: Task = Task.OTHER
    library: str = ""
    isolation: Isolation = Isolation.SHARED
    contract: ModelContract | None = None
    golden: Golden | None = None
    has_package: bool = True
    source: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version as the library knows it. Everything but state, decision and edition never changes."""

    id: str
    model_id: str
    project: str
    model: str
    version: str
    ordinal: int
    digest: str
    format: ModelFormat
    task: Task
    library: str
    isolation: Isolation
    size_bytes: int
    state: VersionState
    has_package: bool
    files: Mapping[str, StoredFile]
    contract: ModelContract | None
    golden: Golden | None
    audit: AuditReport
    card: str
    source: Mapping[str, Any]
    author_id: str
    author_name: str
    created_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    reason: str
    edition: int
    aliases: tuple[str, ...] = ()

    @property
    def etag(self) -> str:
        """Changes with every change of the version."""
        return f'"{self.id}-{self.edition}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A model as the library knows it. `task`, `library` and `format` are those of its newest version."""

    id: str
    project: str
    name: str
    description: str
    visibility: Visibility
    task: str
    library: str
    format: str
    created_at: datetime
    created_by: str
    updated_at: datetime
    edition: int
    tags: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    latest_version: str | None = None
    versions: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change of the model itself, its aliases and tags."""
        return f'"{self.id}-{self.edition}"'


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version that may be deployed, and how it was chosen: "version", "alias champion", "newest approved"."""

    version: VersionRecord
    how: str
