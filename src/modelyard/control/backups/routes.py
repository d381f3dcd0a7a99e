"""Backups over HTTP: a `POST` answers with the archive itself, so that a copy never lies on the machine it protects."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from modelyard.control.backups.archive import SUFFIX
from modelyard.control.backups.making import Backups
from modelyard.control.backups.tables import backups
from modelyard.control.identity import caller, require_everywhere
from modelyard.control.records import parts_of
from modelyard.domain.access import Verb
from modelyard.foundation.documents import to_json

router = APIRouter(tags=["backups"])
_SHOWN = 200


@router.post(
    "/backups",
    summary="Make a backup",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-tar": {}}, "description": "The archive, sealed in its last line."}},
)
def make_backup(request: Request) -> StreamingResponse:
    """Everything in one archive: records, files, packages, secrets, history. `x-backup` says what is in it.

    It holds the secrets that keys are checked with: keep it as you keep those. The last line seals it; an archive
    without that line is not whole.
    """
    summary, blocks = parts_of(request).get(Backups).make(caller(request))
    headers = {
        "content-disposition": f'attachment; filename="{summary.id}{SUFFIX}"',
        "x-backup": to_json(summary).decode("ascii"),
        "cache-control": "no-store",
    }
    return StreamingResponse(blocks, media_type="application/x-tar", headers=headers)


@router.get("/backups", summary="Which backups were made")
def list_backups(request: Request) -> dict[str, Any]:
    """The newest backups, who made them, how large they were, their digest, and how each ended."""
    require_everywhere(caller(request), Verb.ADMIN)
    query = select(backups).order_by(backups.c.at.desc()).limit(_SHOWN)
    with parts_of(request).database.read() as tx:
        rows = [{**row, "at": row["at"].isoformat()} for row in tx.execute(query).mappings()]
    return {"items": rows, "next_cursor": None}
