"""Requests that their callers do not wait for: `Prefer: respond-async` (RFC 7240) on any prediction.

What can be said of a request at once is said at once: a key that may not ask, a body that does not fit. What is
accepted is on the disk before 202 goes out, with its address in `Location`. When its turn comes it is the same request
in the same dialect, and its answer is kept as it would have been sent.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Final, cast

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import BadHeader
from modelyard.domain.errors.platform import InvalidRequest, NotFound, NotSupported, StorageFull
from modelyard.domain.upstreams import forbidden_host, origin_of
from modelyard.foundation.http.exchange import Reply, Request, Wire
from modelyard.foundation.http.head import unread_head
from modelyard.foundation.http.wire import NO_HEADERS, HeaderLines, header_lines
from modelyard.inference.admission import Caller
from modelyard.inference.deferred import (
    Accepted,
    Deferrals,
    Found,
    KeptReply,
    id_of_key,
    is_id,
    make_id,
    status_document,
)
from modelyard.inference.routing import Switchboard
from modelyard.inference.server.addresses import Address, Page
from modelyard.inference.server.answers import send_error, send_json
from modelyard.inference.server.dialects import GENERATE, MLFLOW, V1, V2, Dialect
from modelyard.inference.server.errands import Errands
from modelyard.inference.server.predicting import Asked, ask, check
from modelyard.inference.server.reach import service_to_ask

_ACCEPTED: Final = 202
_NO_CONTENT: Final = 204
_DIALECTS: Final[Mapping[str, Dialect]] = {"v2": V2, "v1": V1, "mlflow": MLFLOW, "generate": GENERATE}
_NAMES: Final = {id(dialect): name for name, dialect in _DIALECTS.items()}
_KEPT_FIELDS: Final = frozenset(
    {
        b"content-type",
        b"accept",
        b"inference-header-content-length",
        b"priority",
        b"x-request-timeout-ms",
        b"traceparent",
    }
)
_PATIENT: Final = b"u=5"
"""Urgency (RFC 9218) of a request that says nothing of it: those that somebody waits for go first."""
_LONGEST_KEY: Final = 255
_NOBODY: Final = cast("Wire", None)
"""The connection of a request that has none; its id is its own, and nothing else of it is asked for."""
_SOON: Final = header_lines([(b"retry-after", b"1")])


def wants_later(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the caller would rather not wait (RFC 7240, section 4.1)."""
    prefer = fields.get(b"prefer")
    return prefer is not None and any(
        part.split(b";")[0].strip().lower() == b"respond-async" for part in prefer.split(b",")
    )


class DeferredDoor:
    """Takes requests to be answered later, and shows what became of them."""

    def __init__(self, board: Switchboard, deferrals: Deferrals) -> None:
        self._board = board
        self._deferrals = deferrals
        self._errands = Errands()

    def take(self, asked: Asked) -> None:
        """Accept one prediction, or say what is wrong with it."""
        measures = asked.service.measures
        try:
            check(asked)
            if asked.caller.allowance is not None:  # counts against the rate now; what it may take else, when it is run
                asked.caller.allowance.enter().leave()
            accepted = self._accepted(asked)
        except ModelyardError as error:
            measures.received.add()
            measures.rejected(error.code)
            send_error(asked.request, asked.reply, error)
            return
        self._errands.settle(self._accept(asked, accepted), asked.request, asked.reply)

    def show(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        """What became of a request, its answer, or the end of it."""
        self._errands.settle(self._show(address, request, reply, caller), request, reply)

    def _accepted(self, asked: Asked) -> Accepted:
        fields = asked.request.head.fields
        key = fields.get(b"idempotency-key")
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise BadHeader(f"Idempotency-Key has 1 to {_LONGEST_KEY} characters", hint="send a UUID")
        service, caller, now = asked.service, asked.caller, time()
        kept = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in fields.items()
            if name in _KEPT_FIELDS or name.startswith(b"ce-")
        }
        kept.setdefault("priority", _PATIENT.decode())
        text = "" if key is None else key.decode("latin-1")
        return Accepted(
            id=make_id() if key is None else id_of_key(service.project, service.name, caller.key, text),
            project=service.project,
            service=service.name,
            caller=caller.key,
            has_key=self._board.keys.has(caller.key),
            dialect=_NAMES[id(asked.dialect)],
            version=asked.version,
            fields=kept,
            created_at=now,
            expires_at=now + self._deferrals.rules.patience_s,
            webhook=self._webhook(fields.get(b"x-webhook-url")),
        )

    def _webhook(self, value: bytes | None) -> str | None:
        if value is None:
            return None
        rules = self._deferrals.rules
        if rules.webhook_ports is None:
            raise NotSupported("webhooks are switched off", hint="an operator sets deferred.webhooks; or ask Location")
        text = value.decode("latin-1")
        try:
            origin = origin_of(text)
        except InvalidRequest as error:
            raise BadHeader("x-webhook-url is not the address of a webhook", hint=error.hint) from error
        if rules.webhook_ports and origin.port not in rules.webhook_ports:
            ports = ", ".join(map(str, rules.webhook_ports))
            raise BadHeader(f"a webhook may not have the port {origin.port}", hint=f"one of {ports}")
        if (why := forbidden_host(origin.host, allow_private=rules.webhook_private)) is not None:
            raise BadHeader(f"this webhook is never told anything: {why}", hint="name a public server")
        return text

    async def _accept(self, asked: Asked, accepted: Accepted) -> None:
        request, reply = asked.request, asked.reply
        if b"idempotency-key" in request.head.fields:
            digest = hashlib.sha256(request.body).hexdigest()
            found = await self._deferrals.known(accepted.id, digest)
            if found is not None:
                self._send_accepted(reply, status_document(found, is_running=self._deferrals.is_running(found)))
                return
        try:
            await self._deferrals.accept(accepted, request.body)
        except OSError as error:
            raise StorageFull(
                f"the request cannot be kept: {error.strerror}", hint="an operator has to make room"
            ) from error
        self._send_accepted(reply, status_document(Found(accepted, None, 0, Path()), is_running=False))

    def _send_accepted(self, reply: Reply, document: dict[str, object]) -> None:
        if reply.closed:
            return
        location = f"/v2/requests/{document['id']}"
        headers = header_lines([(b"location", location.encode()), (b"preference-applied", b"respond-async")])
        send_json(reply, document, status=_ACCEPTED, headers=HeaderLines(headers + _SOON))

    async def _show(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        found = await self._deferrals.find(address.model) if is_id(address.model) else None
        if found is None or not self._may_see(caller, found.accepted):
            raise NotFound("there is no request of this id", hint="answers are kept for a while: deferred.kept_hours")
        if request.method == "DELETE":
            await self._deferrals.end(found)
            if not reply.closed:
                reply.send(_NO_CONTENT, content_type="")
            return
        if address.page is Page.RESPONSE and found.outcome is not None and found.outcome.status:
            body = await self._deferrals.answer(found)
            if not reply.closed:
                outcome = found.outcome
                lines = HeaderLines(outcome.headers.encode("latin-1"))
                reply.send(outcome.status, body, content_type=outcome.content_type, headers=lines)
            return
        document = status_document(found, is_running=self._deferrals.is_running(found))
        if not reply.closed:
            waits = address.page is Page.RESPONSE and found.outcome is None
            headers = _SOON if found.outcome is None else NO_HEADERS
            send_json(reply, document, status=_ACCEPTED if waits else 200, headers=headers)

    def _may_see(self, caller: Caller, accepted: Accepted) -> bool:
        """Its own caller, or whoever administers the project; to all others it is not there (safety.md, AZ-09)."""
        if not self._board.keys.required:
            return True
        own = caller.key == accepted.caller and caller.may(Verb.INFER, accepted.project, accepted.service)
        return own or caller.may(Verb.ADMIN, accepted.project, accepted.service)


def replay(board: Switchboard, accepted: Accepted, body: bytes, reply: KeptReply) -> None:
    """Ask what was accepted, as if it came now; answered through `reply`."""
    fields = {name.encode("latin-1"): value.encode("latin-1") for name, value in accepted.fields.items()}
    head = replace(unread_head("POST"), fields=fields, request_id=accepted.id.encode())
    request = Request(head, body, _NOBODY, 0, None)
    try:
        caller = board.keys.accepted(accepted.caller, accepted.project, has_key=accepted.has_key)
        service = service_to_ask(board, caller, accepted.project, accepted.service)
    except ModelyardError as error:
        send_error(request, reply, error)
        return
    ask(Asked(request, reply, service, caller, _DIALECTS[accepted.dialect], accepted.version))
