"""`generate_stream`: one request, any number of answers, as server-sent events.

Each part is an event with one JSON object; what goes wrong after the first is an event with the error document, and the
last one. Parts are made no faster than the client takes them, and a client that goes ends the code's generator. Every
way out is booked once, as one request.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import UnsupportedMediaType
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.errors.platform import NotSupported
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.inference.admission import Caller
from modelyard.inference.protocol import InferRequest, read_generate, write_error, write_generate
from modelyard.inference.routing import Flow, Service, Switchboard
from modelyard.inference.server.addresses import Address
from modelyard.inference.server.answers import send_error
from modelyard.inference.server.errands import Errand, Errands
from modelyard.inference.server.predicting import shorter
from modelyard.inference.server.reach import service_to_ask

_EVENTS: Final = "text/event-stream; charset=utf-8"
_JSON: Final = b"application/json"
_OK: Final = 200


@dataclass(slots=True, eq=False, kw_only=True)
class _Streamed(Errand):
    """One stream under way."""

    parsed: InferRequest
    flow: Flow
    left_s: float


class StreamDoor:
    """Answers `generate_stream`."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._errands = Errands()

    def answer(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        """Take one request; raises nothing."""
        service = service_to_ask(self._board, caller, address.project, address.model)
        service.measures.received.add()
        try:
            streamed = _admit(address, request, reply, service, caller)
        except ModelyardError as error:
            service.measures.rejected(error.code)
            send_error(request, reply, error)
            return
        self._errands.start(_stream(streamed), reply, name=f"stream {service.name}")


def _admit(address: Address, request: Request, reply: Reply, service: Service, caller: Caller) -> _Streamed:
    started, fields = perf_counter(), request.head.fields
    kind = fields.get(b"content-type", _JSON).split(b";")[0].strip().lower()
    if kind != _JSON:
        raise UnsupportedMediaType("this address does not read that content type", hint="send application/json")
    gate = service.enter(caller.allowance, fields)
    try:
        backend = service.choose(fields) if address.version is None else service.at_version(address.version)
        if backend.workers is None or backend.signature is None:
            raise NotSupported("this model gives one answer, not a stream of them", hint="POST …/generate or …/infer")
        parsed = read_generate(request.body, signature=backend.signature)
        patience = fields.get(b"x-request-timeout-ms")
        if patience is not None:
            parsed.timeout_us = shorter(parsed.timeout_us, patience)
        left_s = service.deadline_s
        if parsed.timeout_us:
            left_s = min(left_s, parsed.timeout_us * 1e-6)
        flow = backend.workers.stream(parsed.inputs, left_s=left_s)
    except ModelyardError:
        service.leave(gate)
        raise
    return _Streamed(
        parsed=parsed,
        flow=flow,
        left_s=left_s,
        request=request,
        reply=reply,
        service=service,
        backend=backend,
        gate=gate,
        started=started,
    )


async def _stream(asked: _Streamed) -> None:
    request = asked.request
    try:
        await asked.carry_out(
            _pass_on(asked),
            allowed_s=asked.left_s,
            write=lambda error: b"data: %b\n\n" % write_error(error, request_id=request.id)[1],
            refuse=lambda error: send_error(request, asked.reply, error, headers=asked.backend.headers),
            unforeseen=lambda: RunFailed(
                "the model's answer cannot be written", hint="the server's log has the reason"
            ),
        )
    finally:
        asked.flow.close()


async def _pass_on(asked: _Streamed) -> bool:
    reply, backend = asked.reply, asked.backend
    assert backend.signature is not None
    async for outputs in asked.flow:
        part = write_generate(
            asked.parsed,
            outputs,
            signature=backend.signature,
            version=backend.backend.version,
            model_name=backend.key.service,
        )
        if not reply.is_answered:
            _begin(asked)
        reply.write(b"data: %b\n\n" % part.body)
        await reply.drain()
    if not reply.is_answered:
        _begin(asked)
    reply.finish()
    backend.measures.relayed(started=asked.started, tokens={})
    return True


def _begin(asked: _Streamed) -> None:
    asked.backend.measures.began(asked.started)
    asked.reply.start(_OK, content_type=_EVENTS, headers=asked.backend.headers)
