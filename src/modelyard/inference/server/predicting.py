"""Admit, decode and line up predictions: one, or what came in one turn of the loop for one service from one caller.

Every way out is booked in the service's account: received = answered + rejected + lost + in flight.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.edge import BadHeader, NotAcceptable, UnsupportedMediaType
from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.turns import MOST_TOGETHER, Arrival, Turn
from modelyard.inference.admission import Caller
from modelyard.inference.batching import Batcher
from modelyard.inference.protocol import Lot
from modelyard.inference.routing import ServedBackend, Service
from modelyard.inference.server.answers import send_error
from modelyard.inference.server.call import InferCall
from modelyard.inference.server.dialects import Dialect
from modelyard.inference.server.events import MARK, is_structured, open_event
from modelyard.inference.server.joint_call import JointCall

INFER_TYPES: Final = frozenset({None, b"application/json", b"application/octet-stream"})
"""Content types of V2 requests, as they are mostly written."""
_MOST_DIGITS: Final = 19
_WANTED: Final = ("*/*", "application/*", "application/json", "application/octet-stream")


@dataclass(slots=True)
class Asked:
    """One prediction that a caller who may ask for it wants. Nothing is counted or admitted yet."""

    request: Request
    reply: Reply
    service: Service
    caller: Caller
    dialect: Dialect
    version: str | None = None
    """Of the model, where the address names one."""


@dataclass(slots=True)
class AskedTogether:
    """V2 requests to one service by one caller that came in one turn of the loop, alike in the headers that count.

    `json_size` is their Inference-Header-Content-Length; None for JSON.
    """

    arrivals: list[Arrival]
    turn: Turn
    service: Service
    caller: Caller
    json_size: int | None


def ask(asked: Asked) -> None:
    """Admit, decode and line up one prediction; it is answered now or later."""
    started = perf_counter()
    request, reply, service, dialect = asked.request, asked.reply, asked.service, asked.dialect
    measures = service.measures
    measures.received.add()
    try:
        fields = request.head.fields
        if MARK in fields or fields.get(b"content-type") not in INFER_TYPES:
            request, reply = _opened(request, reply, service, dialect)
            fields = request.head.fields
        accept = fields.get(b"accept")
        if accept is not None and accept != b"*/*":
            _check_accept(accept)
        gate = service.enter(asked.caller.allowance, fields)
    except ModelyardError as error:
        measures.rejected(error.code)
        send_error(request, reply, error)
        return
    backend: ServedBackend | None = None
    try:
        backend = service.choose(fields) if asked.version is None else service.at_version(asked.version)
        assert backend.signature is not None
        assert backend.batcher is not None
        parsed = dialect.read(request.body, fields, backend.signature)
        patience = fields.get(b"x-request-timeout-ms")
        if patience is not None:
            parsed.timeout_us = shorter(parsed.timeout_us, patience)
    except ModelyardError as error:
        service.leave(gate)
        measures.rejected(error.code)
        if backend is None:
            send_error(request, reply, error)
        else:
            send_error(request, reply, error, headers=backend.headers)
        return
    call = InferCall(
        parsed, request, reply, service=service, backend=backend, gate=gate, write=dialect.write, started=started
    )
    if backend.signature.varies:
        call.shape_key = backend.signature.shape_key(parsed.inputs)
    batcher = backend.batcher
    if batcher.may_wait:
        reply.on_disconnect(lambda: batcher.discard(call))
    batcher.submit(call)


def check(asked: Asked) -> None:
    """Raise what `ask` would refuse the request for, as far as that can be known now; nothing is counted.

    A service that cannot answer at the moment is no reason: it may when the request's turn comes.
    """
    request, service, dialect = asked.request, asked.service, asked.dialect
    fields = request.head.fields
    if MARK in fields or fields.get(b"content-type") not in INFER_TYPES:
        request, _ = _opened(request, asked.reply, service, dialect)
        fields = request.head.fields
    accept = fields.get(b"accept")
    if accept is not None and accept != b"*/*":
        _check_accept(accept)
    patience = fields.get(b"x-request-timeout-ms")
    if patience is not None:
        shorter(0, patience)
    try:
        backend = service.choose(fields) if asked.version is None else service.at_version(asked.version)
    except Unavailable:
        return
    if backend.signature is not None:
        dialect.read(request.body, fields, backend.signature)


def take(asked: AskedTogether) -> None:
    """Admit, decode and line up what came together; what is not plain goes through `ask`."""
    service, arrivals = asked.service, asked.arrivals
    count = len(arrivals)
    backend = service.only if asked.caller.allowance is None else None
    batcher = None if backend is None else backend.batcher
    if backend is None or backend.forms is None or not isinstance(batcher, Batcher):
        asked.turn.each(arrivals)
        return
    entry = service.enter_many(count)
    if entry is None:
        asked.turn.each(arrivals)
        return
    bodies = [arrival[2] for arrival in arrivals]
    lots, rest = backend.forms.read(bodies, asked.json_size)
    if rest:
        entry.take_back(len(rest))
        for index in rest:
            backend.forms.learn(bodies[index], asked.json_size)
        asked.turn.each([arrivals[index] for index in rest])
    if not lots:
        return
    service.measures.received.add(count - len(rest))
    most = min(batcher.limits.max_rows, MOST_TOGETHER)
    calls: list[JointCall] = []
    for lot in lots:
        whole = JointCall(lot, _picked(arrivals, lot), asked.turn, service=service, backend=backend, entry=entry)
        calls += whole.cut(max(1, most // lot.form.rows))
    batcher.submit_turn(calls)


def _picked(arrivals: list[Arrival], lot: Lot) -> list[Arrival]:
    return arrivals if len(lot.picked) == len(arrivals) else [arrivals[index] for index in lot.picked]


def shorter(timeout_us: int, patience: bytes) -> int:
    """The shorter of the body's `timeout` (0: none) and the header's milliseconds."""
    if not patience.isdigit() or len(patience) > _MOST_DIGITS or not int(patience):
        raise BadHeader(
            f"x-request-timeout-ms cannot be {quote(patience.decode('latin-1'))}", hint="send whole milliseconds"
        )
    asked = int(patience) * 1000
    return min(timeout_us, asked) if timeout_us else asked


def _opened(request: Request, reply: Reply, service: Service, dialect: Dialect) -> tuple[Request, Reply]:
    """The request and its reply, out of the event around them if there is one; its type is one that is read."""
    fields = request.head.fields
    if MARK in fields or is_structured(fields.get(b"content-type")):
        request, reply = open_event(request, reply, service)
    _check_type(request.head.fields.get(b"content-type"), dialect)
    return request, reply


def _check_type(value: bytes | None, dialect: Dialect) -> None:
    if value is None:
        return
    kind = value.split(b";")[0].strip().lower().decode("latin-1")
    if kind not in dialect.content_types:
        raise UnsupportedMediaType(
            "this address does not read that content type", hint=f"send {' or '.join(dialect.content_types)}"
        )


def _check_accept(value: bytes) -> None:
    kinds = {part.split(";")[0].strip().lower() for part in value.decode("latin-1").split(",")}
    if not kinds.intersection(_WANTED):
        raise NotAcceptable("answers here are application/json", hint="send the header Accept: application/json")
