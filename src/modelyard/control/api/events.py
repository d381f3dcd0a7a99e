"""Server-sent events: what happens on the platform, as it happens, to whoever may see it.

A client that comes back sends `Last-Event-ID` and gets what it missed. Events older than the settings say are gone;
history has what matters of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from modelyard.control.identity import Principal, caller, reach_of
from modelyard.control.records import (
    ControlParts,
    Database,
    Event,
    events_after,
    forget_events,
    last_event,
    parts_of,
)
from modelyard.domain.access import Verb

router = APIRouter(tags=["events"])
_BATCH: Final = 200


class Bell:
    """Rings on the event loop whenever something was committed; rings for good when the application ends."""

    def __init__(self, database: Database) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self.is_over = False
        self._leave = database.subscribe("events", self._from_thread)

    def _from_thread(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # the loop ended between the commit and this call
            self.is_over = True

    def _ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether it rang in time."""
        if self.is_over:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Let every stream end. Idempotent."""
        self.is_over = True
        self._leave()
        self._event.set()


def forget_old(parts: ControlParts) -> None:
    """Drop events that are past their time."""
    with parts.database.begin() as tx:
        forget_events(tx, older_than=timedelta(hours=parts.settings.history.events_kept_hours))


@router.get(
    "/events",
    summary="Follow what happens",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events, one after the other"}},
)
async def follow(
    request: Request,
    *,
    after: Annotated[int | None, Query(ge=0, description="Events after this number; default: only new ones.")] = None,
    project: Annotated[str | None, Query(max_length=63, description="Only events of this project.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=20, description="As the browser sends it.")] = None,
) -> StreamingResponse:
    """A stream that ends with the connection: `id` is the event's number, `event` its kind, `data` the document."""
    parts = parts_of(request)
    start = int(last_event_id) if last_event_id and last_event_id.isdecimal() else after
    if start is None:
        start = await run_in_threadpool(_newest, parts.database)
    lines = _lines(parts, request.app.state.events, caller(request), start=start, project=project)
    return StreamingResponse(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _lines(
    parts: ControlParts, bell: Bell, principal: Principal, *, start: int, project: str | None
) -> AsyncIterator[str]:
    number = start
    yield f": events after {number}\n\n"
    while not bell.is_over:
        waiting = asyncio.ensure_future(bell.wait(parts.settings.api.events_ping_s))
        try:
            events = await run_in_threadpool(_read, parts.database, number)
            for event in events:
                number = event.number
                if _may_see(principal, event) and project in (None, event.project):
                    yield _text(event)
            if not events and not await waiting:
                yield ": still here\n\n"
        finally:
            waiting.cancel()


def _may_see(principal: Principal, event: Event) -> bool:
    reach = reach_of(principal, Verb.READ)
    if event.project is None:
        return reach.everything
    name = event.subject.partition("/")[2] or None
    return reach.covers(event.project, name) if name else reach.covers(event.project, None)


def _text(event: Event) -> str:
    document = {
        "at": event.at.isoformat(),
        "kind": event.kind,
        "project": event.project,
        "subject": event.subject,
        "payload": dict(event.payload),
    }
    return f"id: {event.number}\nevent: {event.kind}\ndata: {json.dumps(document)}\n\n"


def _newest(database: Database) -> int:
    with database.read() as tx:
        return last_event(tx)


def _read(database: Database, number: int) -> list[Event]:
    with database.read() as tx:
        return events_after(tx, number, limit=_BATCH)
