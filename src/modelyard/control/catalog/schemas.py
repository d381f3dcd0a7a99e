"""Documents of the library on the wire."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.catalog.values import ModelRecord
from modelyard.control.identity import Visibility
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT
from modelyard.domain.lifecycle import VersionState


class SearchQuery(BaseModel):
    """What is looked for; everything that is given must fit."""

    model_config = ConfigDict(extra="forbid")

    q: str = Field(default="", max_length=200, description="Words; each must begin a word of the model's text.")
    project: str | None = Field(default=None, max_length=63, description="`*` looks in all; default: the caller's own.")
    task: str | None = Field(default=None, max_length=64)
    library: str | None = Field(default=None, max_length=64)
    format: str | None = Field(default=None, max_length=64)
    tag: str | None = Field(default=None, max_length=63)
    author: str | None = Field(default=None, max_length=255, description="Who uploaded a version.")
    state: VersionState | None = Field(default=None, description="A version is in this state.")
    visibility: Visibility | None = None
    sort: str = Field(default="name", max_length=20, description="name, created or updated; `-` turns it round.")
    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Items a page.")
    cursor: str | None = Field(default=None, max_length=1024, description="`next_cursor` of the page before.")


class ModelChangesBody(BaseModel):
    """What is to be different; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    description: str | None = Field(default=None, max_length=20_000)
    visibility: Visibility | None = None
    tags: list[str] | None = Field(default=None, max_length=64, description="Replaces all tags.")
    shared_with: list[str] | None = Field(default=None, max_length=256, description="Projects; replaces all of them.")


class DecisionBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=2000, description="Needed for a rejection; kept in history.")


class AliasBody(BaseModel):
    """Where an alias points."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(min_length=1, max_length=64, examples=["3"])


class FileDocument(BaseModel):
    """A file of a version."""

    name: str
    sha256: str
    size_bytes: int


class VersionDocument(BaseModel):
    """An immutable version."""

    name: str = Field(description="The model.")
    project: str
    version: str
    digest: str
    state: str = Field(description="needs_review, approved, rejected or archived.")
    format: str
    task: str
    library: str
    isolation: str
    size_bytes: int
    aliases: list[str]
    files: list[FileDocument]
    contract: dict[str, Any] | None = Field(description="Inputs and outputs, labels, task, largest batch.")
    golden: dict[str, Any] | None = Field(description="A request and the answer it must get.")
    audit: dict[str, Any] = Field(description="The verdict and every check with its evidence.")
    card: str
    source: dict[str, Any]
    created_at: datetime
    created_by: str
    decided_at: datetime | None
    decided_by: str | None
    reason: str = Field(description="What was decided and why; until then, what a person has to look at.")


class VersionsDocument(BaseModel):
    """A page of versions, newest first."""

    items: list[VersionDocument]
    next_cursor: str | None


class ModelDocument(BaseModel):
    """A model."""

    name: str
    project: str
    description: str
    visibility: str
    shared_with: list[str]
    task: str
    library: str
    format: str
    tags: list[str]
    aliases: dict[str, str]
    latest_version: str | None
    versions: int
    created_at: datetime
    created_by: str
    updated_at: datetime


class ModelsDocument(BaseModel):
    """A page of models."""

    items: list[ModelDocument]
    next_cursor: str | None


def model_document(model: ModelRecord) -> dict[str, Any]:
    """A model as it goes out."""
    return {
        "name": model.name,
        "project": model.project,
        "description": model.description,
        "visibility": model.visibility.value,
        "shared_with": list(model.shared_with),
        "task": model.task,
        "library": model.library,
        "format": model.format,
        "tags": list(model.tags),
        "aliases": dict(model.aliases),
        "latest_version": model.latest_version,
        "versions": model.versions,
        "created_at": model.created_at.isoformat(),
        "created_by": model.created_by,
        "updated_at": model.updated_at.isoformat(),
    }
