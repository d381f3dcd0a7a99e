"""Run an ASGI 3 application (FastAPI, Starlette) behind the edge.

The application gets what the edge let in: whole bodies, or, on streamed routes, a body that comes no quicker than it
reads. Answers may be streamed (server-sent events, downloads): `send` waits for slow clients. A client that goes away
is told by `http.disconnect`, and the next `send` raises `ClientGone`.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import EdgeError
from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.refusal import InternalError
from modelyard.foundation.http.wire import OURS, header_lines

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_LOG: Final = logging.getLogger(__name__)
_HIDDEN_SLASH: Final = re.compile(r"%(?:2[fF]|5[cC])")
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


class ClientGone(OSError):
    """The client does not wait for this answer any more."""


class AsgiHandler:
    """A `Handler` in front of an ASGI application.

    `start` before serving and `stop` after the listener is closed run the application's lifespan. An address with an
    encoded slash or backslash is refused with 400: the application routes on decoded paths, where it would pass for a
    separator.
    """

    def __init__(self, app: AsgiApp, *, stop_s: float = 10.0) -> None:
        self._app = app
        self._stop_s = stop_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._lifespan = _Lifespan(app)

    def handle(self, request: Request, reply: Reply) -> None:
        """Begin to answer; the application runs in a task of its own."""
        if _HIDDEN_SLASH.search(request.path):
            reply.refuse(400, EdgeError("the address holds an encoded slash"), close=request.stream is not None)
            return
        exchange = _Exchange(self._app, request, reply, self._lifespan.state)
        task = asyncio.get_running_loop().create_task(exchange.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self) -> None:
        """Run the application's startup.

        Raises:
            StartRefused: the application says that it cannot start.
        """
        await self._lifespan.start()

    async def stop(self) -> None:
        """Wait for what is running (`stop_s` at most, then it is cancelled), then run the application's shutdown."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._stop_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=self._stop_s)
        await self._lifespan.stop(self._stop_s)


class _Exchange:
    """One request, as the application sees it."""

    def __init__(self, app: AsgiApp, request: Request, reply: Reply, state: dict[str, Any]) -> None:
        self._app = app
        self._request = request
        self._reply = reply
        self._state = state
        self._body_given = False
        self._gone = asyncio.Event()
        self._status = 0
        self._content_type = ""
        self._headers: list[tuple[bytes, bytes]] = []
        self._left: int | None = None
        reply.on_disconnect(self._gone.set)

    async def run(self) -> None:
        """Call the application; whatever it does, the client gets one answer or a closed connection."""
        try:
            await self._app(self._scope(), self._receive, self._send)
        except ClientGone:
            return
        except asyncio.CancelledError:
            self._end_badly("was cancelled")
            raise
        except Exception:  # noqa: BLE001  (the request edge: logged, answered 500)
            if self._reply.closed:  # what frameworks make of `ClientGone`
                return
            _LOG.exception("request %s failed", self._request.id)
            self._end_badly("failed")
            return
        if not self._reply.is_finished and not self._reply.closed:
            _LOG.error("request %s: the application returned without a whole answer", self._request.id)
            self._end_badly("was not finished")

    def _end_badly(self, what: str) -> None:
        if self._reply.is_finished or self._reply.closed:
            return
        if self._reply.is_answered:
            self._reply.abort()
            return
        self._reply.refuse(500, InternalError(f"the request {what}"))

    def _scope(self) -> dict[str, Any]:
        request = self._request
        host = (request.get(b"host") or b"").decode("latin-1")
        name, _, port = host.rpartition(":") if host.rpartition(":")[2].isdigit() else (host, "", "")
        default_port = 443 if request.scheme == "https" else 80
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.0" if request.head.http10 else "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": unquote(request.path),
            "raw_path": request.path.encode("ascii"),
            "query_string": request.query.encode("ascii"),
            "root_path": "",
            "headers": list(request.headers),
            "client": (request.peer, 0) if request.peer else None,
            "server": (name, int(port) if port else default_port),
            "state": dict(self._state) | {"request_id": request.id},
            "extensions": {},
        }

    async def _receive(self) -> Message:
        stream = self._request.stream
        if not self._body_given and not self._gone.is_set():
            if stream is None:
                self._body_given = True
                return {"type": "http.request", "body": self._request.body, "more_body": False}
            try:
                data = await stream.read()
            except ModelyardError:  # the edge has answered, or there is nobody to answer
                self._body_given = True
                return {"type": "http.disconnect"}
            self._body_given = not data
            return {"type": "http.request", "body": data, "more_body": bool(data)}
        if not self._reply.is_finished:
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._reply.closed:
            raise ClientGone("the client went away")
        match message["type"]:
            case "http.response.start":
                self._take_head(message)
            case "http.response.body":
                await self._take_body(bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))
            case other:
                raise ValueError(f"the edge does not know the ASGI message {str(other)[:40]!r}")

    def _take_head(self, message: Message) -> None:
        self._status = message["status"]
        for name, value in message.get("headers", ()):
            lower = bytes(name).lower()
            if lower == b"content-type":
                self._content_type = bytes(value).decode("latin-1")
            elif lower == b"content-length":
                self._left = int(value)
            elif lower not in OURS:
                self._headers.append((lower, bytes(value)))

    async def _take_body(self, data: bytes, *, more: bool) -> None:
        reply = self._reply
        if not self._status:
            raise RuntimeError("the answer's body came before its head")
        if not reply.is_answered:
            headers = header_lines(self._headers)
            if not more and (self._left is None or self._left == len(data)):
                reply.send(self._status, data, content_type=self._content_type, headers=headers)
                self._gone.set()
                return
            if not more and self._request.method == "HEAD":
                more_to_say = self._left
                reply.start(self._status, content_type=self._content_type, headers=headers, length=more_to_say)
                reply.finish()
                self._gone.set()
                return
            reply.start(self._status, content_type=self._content_type, headers=headers, length=self._left)
        self._count(data, more=more)
        reply.write(data)
        if more:
            await reply.drain()
            return
        reply.finish()
        self._gone.set()

    def _count(self, data: bytes, *, more: bool) -> None:
        """Hold the application to the length that it declared: a client would wait, or read into the next answer."""
        if self._left is None or self._request.method == "HEAD":
            return
        self._left -= len(data)
        if self._left < 0 or (not more and self._left):
            raise RuntimeError("the answer's body is not as long as its Content-Length says")


class _Lifespan:
    """The application's startup and shutdown, where it has them."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue(2)
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._refusal: str | None = None
        self._supported = True

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._inbox.put({"type": "lifespan.startup"})
        await self._started.wait()
        if self._refusal is not None:
            await self._task
            raise StartRefused(
                f"the application could not start: {self._refusal[:300]}", hint="its log has the whole reason"
            )

    async def stop(self, limit_s: float) -> None:
        task = self._task
        if task is None or not self._supported or task.done():
            return
        await self._inbox.put({"type": "lifespan.shutdown"})
        await asyncio.wait({task}, timeout=limit_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=limit_s)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self.state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except Exception as error:  # noqa: BLE001  (ASGI: an application without lifespan raises here)
            if self._refusal is not None:
                return
            if self._started.is_set():
                _LOG.exception("the application's shutdown failed")
            elif not isinstance(error, (AssertionError, KeyError, ValueError, NotImplementedError)):
                self._refusal = f"{type(error).__name__}: {error}"
            else:
                self._supported = False
        finally:
            self._started.set()

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                lines = str(message.get("message", "")).strip().splitlines()  # frameworks send a whole traceback
                self._refusal = lines[-1] if lines else "no reason given"
                self._started.set()
            case "lifespan.shutdown.failed":
                _LOG.error("the application's shutdown failed: %s", message.get("message", ""))
            case _:
                pass  # the shutdown is complete when the application returns
