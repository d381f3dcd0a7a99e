"""Secrets over HTTP: names and dates come out, texts only go in."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.identity.journal import JournalBook
from modelyard.control.identity.principal import caller
from modelyard.control.identity.secrets import MOST_CHARS, SecretStore, StoredSecret, list_secrets
from modelyard.control.identity.visibility import require
from modelyard.control.records import parts_of
from modelyard.domain.access import Verb
from modelyard.domain.names import NAME_PATTERN

router = APIRouter(tags=["secrets"])
NAME: Final = f"^{NAME_PATTERN}$"
Name = Annotated[str, Path(pattern=NAME, max_length=63)]
Project = Annotated[str | None, Query(pattern=NAME, max_length=63, description="The project; default: the caller's.")]


class SecretBody(BaseModel):
    """The text of a secret."""

    model_config = ConfigDict(extra="forbid")

    value: str = Field(min_length=1, max_length=MOST_CHARS, description="Printable characters; never shown again.")


@router.get("/secrets", summary="List secrets, never their texts")
def show_secrets(request: Request, *, project: Project = None) -> dict[str, Any]:
    """The secrets of a project by name, with when and by whom they were set."""
    who = caller(request)
    place = project or who.project
    require(who, Verb.DEPLOY, project=place)
    with parts_of(request).database.read() as tx:
        return {"items": [_document(secret) for secret in list_secrets(tx, place)], "next_cursor": None}


@router.put("/secrets/{secret}", summary="Set a secret")
def set_secret(request: Request, secret: Name, body: SecretBody, *, project: Project = None) -> dict[str, Any]:
    """Set a secret or change it; services that use it take the new text within seconds."""
    who, parts = caller(request), parts_of(request)
    with parts.database.begin() as tx:
        stored = parts.get(SecretStore).set(
            tx,
            who,
            project=project or who.project,
            name=secret,
            value=body.value,
            journal=parts.get(JournalBook).write,
        )
    return _document(stored)


@router.delete("/secrets/{secret}", summary="Delete a secret", status_code=204)
def delete_secret(request: Request, secret: Name, *, project: Project = None) -> Response:
    """Forget a secret that nothing uses."""
    who, parts = caller(request), parts_of(request)
    place = project or who.project
    with parts.database.begin() as tx:
        store = parts.get(SecretStore)
        store.delete(tx, who, project=place, name=secret, journal=parts.get(JournalBook).write)
    return Response(status_code=204)


def _document(secret: StoredSecret) -> dict[str, Any]:
    return {
        "name": secret.name,
        "project": secret.project,
        "set_by": secret.set_by,
        "created_at": secret.created_at.isoformat(),
        "updated_at": secret.updated_at.isoformat(),
        "edition": secret.edition,
    }
