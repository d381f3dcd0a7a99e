"""Documents of history on the wire."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from modelyard.control.history.entries import Entry
from modelyard.control.history.reading import LiveAt
from modelyard.control.history.verification import Verification
from modelyard.control.identity import Actor
from modelyard.control.records import DEFAULT_LIMIT, MAX_LIMIT


class HistoryQuery(BaseModel):
    """Which entries, or which moment of which service. Times are ISO 8601; without a zone they are UTC."""

    model_config = ConfigDict(extra="forbid")

    at: datetime | None = Field(
        default=None, description="With `service`: what answered for it then; a time to the second means its end."
    )
    service: str | None = Field(default=None, max_length=63)
    project: str | None = Field(default=None, max_length=63, description="Default with `service`: the caller's own.")
    subject: str | None = Field(default=None, max_length=255, examples=["model/digits"])
    action: str | None = Field(default=None, max_length=64, description="`model.*` takes all that begin so.")
    actor: str | None = Field(default=None, max_length=255, description="A name or a key's id.")
    since: datetime | None = None
    until: datetime | None = None
    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=1024)

    @field_validator("at", "since", "until")
    @classmethod
    def in_utc(cls, moment: datetime | None) -> datetime | None:
        """A moment without a zone is one of UTC."""
        return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

    @field_validator("at")
    @classmethod
    def whole_second(cls, moment: datetime | None) -> datetime | None:
        """Clocks print whole seconds: what began to answer within the one that is named did answer in it."""
        return moment.replace(microsecond=999_999) if moment is not None and moment.microsecond == 0 else moment


class ActorDocument(BaseModel):
    """Who did it."""

    kind: str = Field(description="key, local, bootstrap or system.")
    id: str
    name: str


class EntryDocument(BaseModel):
    """One thing that was done."""

    id: str
    at: datetime
    actor: ActorDocument
    action: str
    project: str | None
    subject: str
    payload: dict[str, Any] | None = Field(description="Null once it was erased.")
    payload_digest: str
    sequence: int | None = Field(description="Its place in the chain; null for less than a second.")


class HistoryDocument(BaseModel):
    """A page of history, or, asked with `at` and `service`, what was live then."""

    items: list[EntryDocument] | None = None
    next_cursor: str | None = None
    service: str | None = None
    project: str | None = None
    at: datetime | None = None
    live: list[dict[str, Any]] | None = Field(
        default=None, description="service, project, revision, model, version, digest, and weight where it was split."
    )
    since: datetime | None = None
    changed_by: ActorDocument | None = None


class FlawDocument(BaseModel):
    """Something that does not add up."""

    kind: str
    sequence: int
    text: str


class VerificationDocument(BaseModel):
    """What the walk along the chain found."""

    intact: bool
    entries: int
    head: str
    anchored: int = Field(description="Up to here a cut end is found out.")
    unsealed: int
    flaws: list[FlawDocument]


def actor_document(actor: Actor) -> dict[str, str]:
    """An actor as it goes out."""
    return {"kind": actor.kind, "id": actor.id, "name": actor.name}


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry as it goes out."""
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": actor_document(entry.actor),
        "action": entry.action,
        "project": entry.project,
        "subject": entry.subject,
        "payload": None if entry.payload is None else dict(entry.payload),
        "payload_digest": entry.payload_digest,
        "sequence": entry.sequence,
    }


def live_document(live: LiveAt) -> dict[str, Any]:
    """What was live, as it goes out."""
    return {
        "service": live.service,
        "project": live.project,
        "at": live.at.isoformat(),
        "live": [dict(backend) for backend in live.backends],
        "since": None if live.since is None else live.since.isoformat(),
        "changed_by": None if live.actor is None else actor_document(live.actor),
    }


def verification_document(found: Verification) -> dict[str, Any]:
    """A verification as it goes out."""
    return {
        "intact": found.is_intact,
        "entries": found.entries,
        "head": found.head,
        "anchored": found.anchored,
        "unsealed": found.unsealed,
        "flaws": [{"kind": flaw.kind, "sequence": flaw.sequence, "text": flaw.text} for flaw in found.flaws],
    }
