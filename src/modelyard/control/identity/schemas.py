"""Documents of keys and projects on the wire."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.identity.keys import StoredKey
from modelyard.control.identity.projects import Project
from modelyard.domain.access import KeyLimits, quotas_of


class Strict(BaseModel):
    """A body whose unknown members are refused, so that a typing error is told."""

    model_config = ConfigDict(extra="forbid")


class LimitsBody(Strict):
    """What a key may take; what is left out is not limited."""

    requests_per_s: float | None = Field(
        default=None, gt=0, le=1e6, description="Requests a second; an idle key may send one second's worth at once."
    )
    max_in_flight: int | None = Field(default=None, ge=1, le=1_000_000, description="Requests at the same time.")
    requests_per_day: int | None = Field(default=None, ge=0, le=10**15, description="Predictions a day (UTC).")
    requests_per_month: int | None = Field(default=None, ge=0, le=10**15, description="Predictions a month (UTC).")

    def value(self) -> KeyLimits:
        """As the domain has it."""
        return KeyLimits(
            requests_per_s=self.requests_per_s,
            max_in_flight=self.max_in_flight,
            quotas=quotas_of(per_day=self.requests_per_day, per_month=self.requests_per_month),
        )


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
    limits: LimitsBody = Field(default_factory=LimitsBody, description="What it may take at the model servers.")


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
    limits: LimitsBody


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
    requests_per_day: int | None = Field(default=None, ge=0, le=10**15, description="Predictions a day; null: any.")
    requests_per_month: int | None = Field(default=None, ge=0, le=10**15, description="Predictions a month; null: any.")


class ProjectDocument(BaseModel):
    """A project."""

    name: str
    description: str
    two_person_review: bool
    created_at: datetime
    requests_per_day: int | None = Field(description="Predictions that its callers get together in a day (UTC).")
    requests_per_month: int | None = Field(description="And in a month.")


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
        "limits": {
            "requests_per_s": key.limits.requests_per_s,
            "max_in_flight": key.limits.max_in_flight,
            "requests_per_day": _most(key.limits, "day"),
            "requests_per_month": _most(key.limits, "month"),
        },
    }


def project_document(project: Project) -> dict[str, Any]:
    """A project as it goes out."""
    return {
        "name": project.name,
        "description": project.description,
        "two_person_review": project.two_person_review,
        "created_at": _text(project.created_at),
        "requests_per_day": project.requests_per_day,
        "requests_per_month": project.requests_per_month,
    }


def _most(limits: KeyLimits, window: str) -> int | None:
    return next((quota.most for quota in limits.quotas if quota.window == window), None)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
