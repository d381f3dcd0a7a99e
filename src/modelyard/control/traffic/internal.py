"""What model servers ask of the control plane: the routing table by long poll, and a place for their reports.

A small ASGI application of its own, served on a Unix socket that only this user can open; it asks for no key.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec

from modelyard.control.jobs import JobDesk
from modelyard.control.nodes import Board, Roster
from modelyard.control.traffic.changes import ServingChanges
from modelyard.control.traffic.feed import TableFeed
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.nodes import NodeReport
from modelyard.domain.routing import LogSettings, ServerReport
from modelyard.foundation.documents import from_json

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REPORT: Final = re.compile(r"/internal/v1/servers/([A-Za-z0-9._-]{1,128})/report")
_NODE_REPORT: Final = re.compile(r"/internal/v1/nodes/([A-Za-z0-9._-]{1,255})/report")
_LOAD: Final = re.compile(r"/internal/v1/services/([^/]{1,200})/([^/]{1,200})/(load|unload)")
_JOBS: Final = re.compile(r"/internal/v1/jobs/([a-z-]{1,32})")
_LOGGING: Final = "/internal/v1/logging"
_REFUSED: Final = 409
_LONGEST_WAIT_S: Final = 60.0
_MAX_REPORT_BYTES: Final = 8 << 20


class InternalApp:
    """The application.

    Paths: `GET /internal/v1/table?after=N&wait_s=S`, `POST /internal/v1/servers/{id}/report`,
    `POST /internal/v1/nodes/{name}/report`, and what callers of a model server ask that is decided here:
    `POST /internal/v1/services/{project}/{name}/load|unload` and `POST /internal/v1/logging`, with the caller's key.
    Workers of jobs come to `POST /internal/v1/jobs/claim|heartbeat|finish|fail|give-back`.
    """

    def __init__(
        self, feed: TableFeed, board: Board, roster: Roster, changes: ServingChanges, *, jobs: JobDesk | None = None
    ) -> None:
        self._jobs = jobs
        self._feed = feed
        self._board = board
        self._roster = roster
        self._changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        method, path = scope["method"], scope["path"]
        if method == "GET" and path == "/internal/v1/table":
            await self._table(scope, send)
        elif method == "POST" and (server := _REPORT.fullmatch(path)):
            await self._hear_server(server[1], receive, send)
        elif method == "POST" and (node := _NODE_REPORT.fullmatch(path)):
            await self._hear_node(node[1], receive, send)
        elif method == "POST" and (path == _LOGGING or _LOAD.fullmatch(path)):
            await self._change(path, receive, send)
        elif method == "POST" and self._jobs is not None and (said := _JOBS.fullmatch(path)):
            body = await _read(receive)
            status, answer = (413, b"") if body is None else await self._jobs.answer(said[1], body)
            await _answer(send, status, answer)
        elif method == "GET" and path == "/healthz":
            await _answer(send, 204)
        else:
            await _answer(send, 404)

    async def _table(self, scope: Scope, send: Send) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("ascii", "replace"))
        try:
            after = int(query.get("after", ["0"])[0])
            wait_s = min(max(float(query.get("wait_s", ["0"])[0]), 0.0), _LONGEST_WAIT_S)
        except ValueError:
            await _answer(send, 400)
            return
        newest = await self._feed.after(after, wait_s=wait_s)
        if newest is None:
            await _answer(send, 304)
        else:
            await _answer(send, 200, newest[1])

    async def _hear_server(self, name: str, receive: Receive, send: Send) -> None:
        report = await _read_report(receive, send, ServerReport)
        if report is not None and report.server == name:
            self._board.take(report)
            await _answer(send, 204)
        elif report is not None:
            await _answer(send, 400)

    async def _hear_node(self, name: str, receive: Receive, send: Send) -> None:
        report = await _read_report(receive, send, NodeReport)
        if report is not None and report.node == name:
            self._roster.take(report)
            await _answer(send, 204)
        elif report is not None:
            await _answer(send, 400)

    async def _change(self, path: str, receive: Receive, send: Send) -> None:
        asked = await _read_report(receive, send, _Asked)
        if asked is None:
            return
        place = _LOAD.fullmatch(path)
        try:
            if place is not None:
                project, name = unquote(place[1]), unquote(place[2])
                table = await self._changes.set_loaded(asked.key, project, name, loaded=place[3] == "load")
            else:
                table = await self._changes.set_logging(asked.key, asked.logging or LogSettings())
        except ModelyardError as error:
            said = {"code": error.code, "detail": error.detail or error.title, "hint": error.hint}
            await _answer(send, _REFUSED, msgspec.json.encode(said))
            return
        await _answer(send, 200, msgspec.json.encode({"table": table}))


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A change that a caller of a model server asks for."""

    key: str | None = None
    logging: LogSettings | None = None


async def _read_report(receive: Receive, send: Send, kind: type[T]) -> T | None:
    """The report in the body; None when it is none, which is answered then."""
    body = await _read(receive)
    if body is None:
        await _answer(send, 413)
        return None
    try:
        return from_json(body, kind)
    except msgspec.MsgspecError:
        await _answer(send, 400)
        return None


async def _read(receive: Receive) -> bytes | None:
    """The body; None when it is too large, what there is of it when the sender went away."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MAX_REPORT_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"cache-control", b"no-store")]
    if status not in (204, 304):
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
