"""History over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from modelyard.control.history import ANCHOR_FILE, chain_key, erase_payload, list_entries, live_at, verify
from modelyard.control.history.reading import Wanted
from modelyard.control.history.schemas import (
    HistoryDocument,
    HistoryQuery,
    VerificationDocument,
    entry_document,
    live_document,
    verification_document,
)
from modelyard.control.identity import Principal, caller, require, require_everywhere
from modelyard.control.records import Transaction, parts_of
from modelyard.domain.access import Verb
from modelyard.domain.errors.platform import InvalidRequest

router = APIRouter(tags=["history"])


@router.get("/history", summary="Who did what, and what was live when", response_model=HistoryDocument)
def read_history(request: Request, query: Annotated[HistoryQuery, Query()]) -> dict[str, Any]:
    """Entries, newest first; with `at` and `service`, what answered for the service at that moment."""
    who = caller(request)
    with parts_of(request).database.read() as tx:
        if query.at is not None:
            return _live(tx, who, query)
        subject = query.subject if query.service is None else f"service/{query.service}"
        asked = query.model_dump(include={"project", "action", "actor", "since", "until", "limit", "cursor"})
        return list_entries(tx, who, Wanted(**asked, subject=subject)).document(entry_document)


@router.get("/history/verify", summary="Whether anybody changed history", response_model=VerificationDocument)
def verify_history(request: Request) -> dict[str, Any]:
    """Walks the whole chain: about a million entries in some seconds."""
    require_everywhere(caller(request), Verb.ADMIN)
    parts = parts_of(request)
    with parts.database.read() as tx:
        found = verify(tx, key=chain_key(parts.pepper), anchors=parts.places.kept / ANCHOR_FILE)
    return verification_document(found)


@router.delete("/history/{entry}/payload", summary="Erase what an entry says", status_code=204, response_class=Response)
def erase(
    request: Request,
    entry: Annotated[str, Path(max_length=40)],
    *,
    reason: Annotated[str, Query(min_length=1, max_length=500, description="Kept in history.")],
) -> Response:
    """For what the law asks to be forgotten. That the entry was there stays, and the chain with it."""
    with parts_of(request).database.begin() as tx:
        erase_payload(tx, caller(request), entry, reason=reason)
    return Response(status_code=204)


def _live(tx: Transaction, who: Principal, query: HistoryQuery) -> dict[str, Any]:
    if query.service is None or query.at is None:
        raise InvalidRequest("`at` asks for a moment of a service", hint="add &service=NAME")
    project = query.project or who.project
    require(who, Verb.READ, project=project, name=query.service)
    return live_document(live_at(tx, project=project, service=query.service, at=query.at))
