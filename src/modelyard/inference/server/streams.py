"""`generate_stream`: one request, any number of answers, as server-sent events.

Each part is an event with one JSON object; what goes wrong after the first is an event with the error document, and the
last one. Parts are made no faster than the client takes them, and a client that goes ends the code's generator. Every
way out is booked once, as one request.
"""

import asyncio
import logging
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import UnsupportedMediaType
from modelyard.domain.errors.inference import DeadlineExceeded, RunFailed
from modelyard.domain.errors.platform import NotSupported
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.inference.admission import Caller, Gate, Hold
from modelyard.inference.protocol import InferRequest, read_generate, write_error, write_generate
from modelyard.inference.routing import Flow, ServedBackend, Service, Switchboard
from modelyard.inference.server.addresses import Address
from modelyard.inference.server.answers import send_error
from modelyard.inference.server.predicting import shorter
from modelyard.inference.server.reach import service_to_ask

_EVENTS: Final = "text/event-stream; charset=utf-8"
_JSON: Final = b"application/json"
_OK: Final = 200
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Streamed:
    """One stream under way."""

    parsed: InferRequest
    flow: Flow
    request: Request
    reply: Reply
    service: Service
    backend: ServedBackend
    gate: Gate | Hold | None
    started: float
    left_s: float


class StreamDoor:
    """Answers `generate_stream`."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._under_way: set[asyncio.Task[None]] = set()

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
        task = asyncio.get_running_loop().create_task(_stream(streamed), name=f"stream {service.name}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

        def end() -> None:  # not before its first step: what never began could not book its end
            task.get_loop().call_soon(task.cancel)

        reply.on_disconnect(end)


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
    return _Streamed(parsed, flow, request, reply, service, backend, gate, started, left_s)


async def _stream(asked: _Streamed) -> None:
    service = asked.service
    try:
        async with asyncio.timeout(asked.left_s):
            await _pass_on(asked)
    except asyncio.CancelledError:
        service.leave(asked.gate)
        service.measures.lost("cancelled", "cancelled")
        raise
    except TimeoutError:
        _fail(asked, DeadlineExceeded("the answer was not complete by the deadline", hint="allow more time"))
    except ModelyardError as error:
        _fail(asked, error)
    except Exception as error:  # noqa: BLE001  (the edge of a task: one answer that nobody foresaw)
        _log.exception("a stream failed", extra={"request_id": asked.request.id})
        failure = RunFailed("the model's answer cannot be written", hint="the server's log has the reason")
        failure.__cause__ = error
        _fail(asked, failure)
    else:
        service.answered(asked.gate)
        asked.backend.measures.relayed(started=asked.started, tokens={})
    finally:
        asked.flow.close()


async def _pass_on(asked: _Streamed) -> None:
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


def _begin(asked: _Streamed) -> None:
    asked.backend.measures.began(asked.started)
    asked.reply.start(_OK, content_type=_EVENTS, headers=asked.backend.headers)


def _fail(asked: _Streamed, error: ModelyardError) -> None:
    """Book the failure and say it: as an error document, or as the last event of a stream that began."""
    asked.service.leave(asked.gate)
    asked.service.book_failure(error)
    reply = asked.reply
    if reply.closed or reply.is_finished:
        return
    if reply.is_answered:
        reply.write(b"data: %b\n\n" % write_error(error, request_id=asked.request.id)[1])
        reply.finish()
    else:
        send_error(asked.request, reply, error, headers=asked.backend.headers)
