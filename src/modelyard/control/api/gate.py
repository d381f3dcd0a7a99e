"""The gate in front of the application: request id, security headers, who is asking, and whether they may come here.

Nothing behind it runs for a caller without a working key where one is asked for, and no body is read for a caller that
may not use the route. A page of another site cannot act through a visitor's browser: requests that change something
must come from our own origin (where the browser names one) and be of a type that no plain form can send.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, cast

from modelyard.control.api.policy import Body, Open, PolicyTable, Rule
from modelyard.control.api.problems import MEDIA_TYPE, headers_of, problem, status_of
from modelyard.control.identity import LOCAL, Authenticator, Principal
from modelyard.domain.access import Verb, key_id
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import (
    BadHeader,
    BodyIncomplete,
    BodyTooLarge,
    MethodNotAllowed,
    RouteNotFound,
    UnsupportedMediaType,
)
from modelyard.domain.errors.inference import BadJson
from modelyard.domain.errors.platform import Forbidden
from modelyard.foundation.strict_json import StrictJsonError
from modelyard.foundation.telemetry import REQUEST_ID, request_id

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOG: Final = logging.getLogger(__name__)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE: Final = frozenset(
    {"authorization", "content-length", "content-type", "host", "if-match", "idempotency-key", "origin"}
)
_SAME: Final = frozenset({"same-origin", "none"})
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
JsonGuard = Callable[[bytes], None]


class Gate:
    """An ASGI application around another one. `authenticator` None means that no key is asked for."""

    def __init__(
        self,
        app: App,
        *,
        policy: PolicyTable,
        authenticator: Authenticator,
        auth_required: bool,
        max_body_bytes: int,
        guard: JsonGuard,
    ) -> None:
        self._app = app
        self._policy = policy
        self._authenticator = authenticator
        self._auth_required = auth_required
        self._max_body_bytes = max_body_bytes
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = request_id(_first(scope, b"x-request-id"))
        token = REQUEST_ID.set(number)
        answer = _Answer(send, number)
        try:
            await self._serve(scope, receive, answer, _headers(scope))
        except ModelyardError as error:
            await answer.refuse(error)
        except Exception:  # noqa: BLE001  (the edge of the request: logged, answered, counted by its status)
            _LOG.exception("a request failed", extra={"method": scope["method"], "path": scope["path"]})
            await answer.refuse(ModelyardError("the request could not be answered", hint="the log has the reason"))
        finally:
            REQUEST_ID.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer", headers: Mapping[str, str]) -> None:
        method, path = scope["method"], scope["path"]
        match = self._policy.match(method, path)
        public = match.rule is not None and match.rule.needs is Open.PUBLIC
        principal = None if public else await self._principal(scope, headers)
        if match.rule is None:
            raise _not_there(match.methods, answer)
        if principal is not None:
            _require(principal, match.rule)
        if method not in _SAFE:
            _require_own_origin(headers)
            _require_type(headers, match.rule)
            if match.rule.body is Body.JSON:
                receive = await self._read_json(receive, headers)
        state = scope.setdefault("state", {})
        state["principal"] = principal
        state["request_id"] = answer.request_id
        await self._app(scope, receive, answer.send)

    async def _principal(self, scope: Scope, headers: Mapping[str, str]) -> Principal:
        key = _presented(headers)
        if not self._auth_required and (key is None or key_id(key) is None):
            return LOCAL  # no key is asked for, and what was sent is none: a client that always sends something
        source = (scope.get("client") or ("local", 0))[0]
        return await asyncio.to_thread(self._authenticator.principal, key, source=source)

    async def _read_json(self, receive: Receive, headers: Mapping[str, str]) -> Receive:
        """Take the body in, bounded, and look at it before any parser does."""
        if int(headers.get("content-length") or 0) > self._max_body_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise BodyIncomplete("the connection ended before the body did")
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                break
        if body:
            try:
                self._guard(bytes(body))
            except StrictJsonError as error:
                raise BadJson(f"the body is not JSON that can be used: {error}", hint="check the body") from error
        return _Replay(bytes(body), receive)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._max_body_bytes} bytes")


class _Answer:
    """The way back: adds what every answer carries, and answers itself when the request is refused."""

    def __init__(self, send: Send, number: str) -> None:
        self._send = send
        self.request_id = number
        self.allow = ""
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            present = {name.lower() for name, _ in message.get("headers", [])}
            extra = {**SECURITY_HEADERS, "x-request-id": self.request_id}
            message["headers"] = [
                *message.get("headers", []),
                *((name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present),
            ]
        await self._send(message)

    async def refuse(self, error: ModelyardError) -> None:
        if self._started:
            return  # the answer is under way; the edge ends the connection so that nobody takes it for whole
        body = json.dumps(problem(error, request_id=self.request_id)).encode()
        headers = {**headers_of(error), "content-type": MEDIA_TYPE, "content-length": str(len(body))}
        if self.allow:
            headers["allow"] = self.allow
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status_of(error), "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})


class _Replay:
    """Gives a body that was read already, then what the connection says next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name. What decides over a request may be there once: two readers could take one each."""
    found: dict[str, str] = {}
    for raw_name, raw_value in cast("list[tuple[bytes, bytes]]", scope["headers"]):
        name = raw_name.decode("latin-1").lower()
        if name in found and name in _ONCE:
            raise BadHeader(f"the header {name} is there twice")
        found[name] = raw_value.decode("latin-1")
    return found


def _first(scope: Scope, wanted: bytes) -> str | None:
    pairs = cast("list[tuple[bytes, bytes]]", scope["headers"])
    return next((value.decode("latin-1") for name, value in pairs if name.lower() == wanted), None)


def _presented(headers: Mapping[str, str]) -> str | None:
    """The key that was sent; a header of another scheme counts as a key that does not work."""
    value = headers.get("authorization")
    if value is None:
        return None
    scheme, _, key = value.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _not_there(methods: tuple[str, ...], answer: _Answer) -> ModelyardError:
    if not methods:
        return RouteNotFound("nothing is served at this path", hint="/docs lists every path")
    answer.allow = ", ".join(methods)
    return MethodNotAllowed("this path does not take this method", hint=f"it takes {answer.allow}")


def _require(principal: Principal, rule: Rule) -> None:
    if isinstance(rule.needs, Verb) and not principal.may_anywhere(rule.needs):
        raise Forbidden(
            f"the key lacks the scope {rule.needs.value}",
            hint=f"modelyard keys create --scope {rule.needs.value} makes one that has it",
        )


def _require_own_origin(headers: Mapping[str, str]) -> None:
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if (site is not None and site not in _SAME) or foreign:
        raise Forbidden("the request comes from a page of another site", hint="call the API from your own program")


def _require_type(headers: Mapping[str, str], rule: Rule) -> None:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal():
        raise BadHeader("Content-Length is not a number")
    given = headers.get("content-type")
    if rule.body is Body.STREAM or given is None:
        return
    if given.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("this route takes application/json", hint="set Content-Type: application/json")
