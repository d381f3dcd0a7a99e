"""Documents of keys and projects on the wire."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.identity.keys import StoredKey
from modelyard.control.identity.projects import Project


class Strict(BaseModel):
    """A body whose unknown members are refused, so that a typing error is told."""

    model_config = ConfigDict(extra="forbid")


class NewKeyBody(Strict):
    """What a key is to be."""

    name: str = Field(min_length=1, max_length=255, description="What will use it.")
    scopes: list[str] = Field(
        min_length=1, max_length=64, description="`VERB[:PROJECT[/NAME]]`.", examples=[["infer:default/digits"]]
    )
    expires_days: float | None = Field(
        default=None, gt=0, le=3650, description="Days it is valid; the setting keys.expires_days when left out."
    )
    never_expires: bool = Field(default=False, description="No end. Think twice.")
    project: str | None = Field(default=None, max_length=63, description="Whose names it means when none is given.")


class TokenBody(Strict):
    """The one-time token of the first start."""

    token: str = Field(min_length=1, max_length=128, description="From the file bootstrap.token.")


class KeyDocument(BaseModel):
    """A key without its text."""

    id: str
    name: str
    scopes: list[str]
    project: str
    state: str = Field(description="active, expired or revoked.")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="On the control API, to the minute.")


class CreatedKeyDocument(KeyDocument):
    """A key with its text, which is shown this once."""

    key: str | None = Field(description="The key. Null when a repeated request is answered again.")


class KeysDocument(BaseModel):
    """A page of keys."""

    items: list[KeyDocument]
    next_cursor: str | None


class NewProjectBody(Strict):
    """What a project is to be."""

    name: str = Field(min_length=1, max_length=63)
    description: str = Field(default="", max_length=2000)
    two_person_review: bool = Field(default=False, description="The author of a version may not approve it.")


class ProjectChanges(Strict):
    """What is to be different."""

    description: str | None = Field(default=None, max_length=2000)
    two_person_review: bool | None = None


class ProjectDocument(BaseModel):
    """A project."""

    name: str
    description: str
    two_person_review: bool
    created_at: datetime


class ProjectsDocument(BaseModel):
    """All projects that the caller can see."""

    items: list[ProjectDocument]
    next_cursor: str | None = None


class WhoDocument(BaseModel):
    """Who is asking."""

    key_id: str | None
    name: str
    project: str
    scopes: list[str]


def key_document(key: StoredKey, *, now: datetime) -> dict[str, Any]:
    """A key as it goes out."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": [str(scope) for scope in key.scopes],
        "project": key.project,
        "state": key.state(now),
        "created_at": _text(key.created_at),
        "created_by": key.created_by,
        "expires_at": _text(key.expires_at),
        "revoked_at": _text(key.revoked_at),
        "last_used_at": _text(key.last_used_at),
    }


def project_document(project: Project) -> dict[str, Any]:
    """A project as it goes out."""
    return {
        "name": project.name,
        "description": project.description,
        "two_person_review": project.two_person_review,
        "created_at": _text(project.created_at),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
