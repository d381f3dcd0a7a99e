"""The OpenAI dialect on our listener: a question goes to the upstream that its `model` names, the answer comes back.

`model` is a service of the caller's project (or of the one in the address). Keys, limits and accounts are those of any
service; what the caller's client never sees is the upstream's address and key. A stream is passed on event by event, no
faster than the client takes it; a client that goes ends the request there too.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.edge import UnsupportedMediaType
from modelyard.domain.errors.inference import ModelNotFound, UpstreamFailed, UpstreamTimeout
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.outbound import Answer, Question
from modelyard.inference.admission import Caller
from modelyard.inference.routing import ServedBackend, Switchboard
from modelyard.inference.server.addresses import Address, Page
from modelyard.inference.server.answers import error_headers
from modelyard.inference.server.errands import Errand, Errands
from modelyard.inference.server.reach import service_to_ask
from modelyard.inference.upstreams import (
    Chat,
    StreamReader,
    TokenCounts,
    UpstreamClient,
    counts_of,
    is_for_caller,
    read_question,
    stream_error,
    write_openai_error,
)

TARGETS: Final[Mapping[Page, str]] = {
    Page.CHAT: "/chat/completions",
    Page.COMPLETIONS: "/completions",
    Page.EMBEDDINGS: "/embeddings",
}
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_OK: Final = 200
_PASSED_ON: Final = (b"traceparent", b"tracestate")
_MOST_REFUSAL_BYTES: Final = 256 << 10


@dataclass(slots=True, eq=False, kw_only=True)
class _Asked(Errand):
    """One question under way."""

    chat: Chat
    target: str
    client: UpstreamClient


class OpenAiDoor:
    """Answers the addresses of the OpenAI dialect."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._errands = Errands()

    def answer(self, address: Address, request: Request, reply: Reply, caller: Caller) -> None:
        """Take one question; it is answered when the upstream has answered."""
        try:
            asked = self._admit(address, request, reply, caller)
        except ModelyardError as error:
            _refuse(request, reply, error)
            return
        self._errands.start(_relay(asked), reply, name=f"relay {asked.service.name}")

    def _admit(self, address: Address, request: Request, reply: Reply, caller: Caller) -> _Asked:
        started = perf_counter()
        kind = (request.get(b"content-type") or _JSON.encode()).split(b";")[0].strip().lower()
        if kind != _JSON.encode():
            raise UnsupportedMediaType("this address does not read that content type", hint=f"send {_JSON}")
        chat = read_question(request.body)
        service = service_to_ask(self._board, caller, address.project, chat.model, relayed=True)
        measures = service.measures
        measures.received.add()
        try:
            gate = service.enter(caller.allowance, request.head.fields)
        except ModelyardError as error:
            measures.rejected(error.code)
            raise
        try:
            backend = service.choose(request.head.fields)
            client = backend.client
            if client is None:
                raise ModelNotFound(f"{quote(chat.model)} does not speak this dialect", hint="POST /v2/models/…/infer")
        except ModelyardError as error:
            service.leave(gate)
            measures.rejected(error.code)
            raise
        return _Asked(
            chat=chat,
            target=TARGETS[address.page],
            client=client,
            request=request,
            reply=reply,
            service=service,
            backend=backend,
            gate=gate,
            started=started,
        )


async def _relay(asked: _Asked) -> None:
    request, reply = asked.request, asked.reply
    await asked.carry_out(
        _ask(asked),
        allowed_s=_allowed_s(asked),
        write=lambda error: stream_error(error, request_id=request.id),
        refuse=lambda error: _refuse(request, reply, error, backend=asked.backend),
        unforeseen=lambda: UpstreamFailed("the upstream's answer could not be passed on"),
    )
    if not reply.is_finished and not reply.closed:
        reply.abort()


async def _ask(asked: _Asked) -> bool:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", asked.request.id.encode())]
    headers += [(name, value) for name in _PASSED_ON if (value := asked.request.get(name)) is not None]
    question = Question("POST", asked.target, headers, asked.chat.body_for(asked.client.upstream))
    async with asked.client.ask(question) as answer:
        return await _pass_on(asked, answer)


async def _pass_on(asked: _Asked, answer: Answer) -> bool:
    """Whether it was a prediction, and no refusal of the question."""
    if is_for_caller(answer.status):
        body = await _whole(asked, answer, _MOST_REFUSAL_BYTES)
        asked.service.measures.answered_with("upstream_4xx")
        _send(asked, answer, body)
        return False
    if answer.content_type == _EVENTS:
        await _stream(asked, answer)
    else:
        body = await _whole(asked, answer, asked.client.rules.max_answer_bytes)
        asked.backend.measures.relayed(started=asked.started, tokens=_tokens(counts_of(body)))
        _send(asked, answer, body)
    return True


async def _whole(asked: _Asked, answer: Answer, most: int) -> bytes:
    try:
        async with asyncio.timeout(asked.client.timeout_s) as limit:
            return await answer.read(most)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise UpstreamTimeout("the upstream fell silent in the middle of its answer") from error


def _send(asked: _Asked, answer: Answer, body: bytes) -> None:
    kind = answer.headers.get(b"content-type", _JSON.encode()).decode("latin-1")
    asked.reply.send(answer.status, body, content_type=kind, headers=asked.backend.headers)


async def _stream(asked: _Asked, answer: Answer) -> None:
    """Event by event; each part within the upstream's time, all of them within that of a stream."""
    client, reply = asked.client, asked.reply
    reader = StreamReader(hides_usage=client.upstream.stream_usage and not asked.chat.wants_usage)
    reply.start(_OK, content_type=f"{_EVENTS}; charset=utf-8", headers=asked.backend.headers)
    asked.backend.measures.began(asked.started)
    sent = 0
    parts = answer.parts()
    while True:
        try:
            async with asyncio.timeout(client.timeout_s) as limit:
                part = await anext(parts, None)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise UpstreamTimeout("the upstream fell silent in the middle of its answer") from error
        passed = reader.finish() if part is None else reader.feed(part)
        sent += len(passed)
        if sent > client.rules.max_answer_bytes:
            raise UpstreamFailed("the upstream's answer is too large", hint="upstreams.max_answer_bytes bounds it")
        if passed:
            reply.write(passed)
            await reply.drain()
        if part is None:
            break
    reply.finish()
    asked.backend.measures.relayed(started=asked.started, tokens=_tokens(reader.counts))


def _tokens(counts: TokenCounts | None) -> dict[str, int]:
    return {} if counts is None else {"prompt": counts.prompt, "completion": counts.completion}


def _allowed_s(asked: _Asked) -> float | None:
    """What the service's own deadline and the bound of a stream allow for the whole answer; None sets no bound."""
    wish_ms = asked.service.goal.limits.deadline_ms
    bounds_ms = [] if wish_ms is None else [wish_ms]
    if asked.chat.stream:
        bounds_ms.append(asked.client.upstream.stream_timeout_ms)
    return min(bounds_ms) / 1000 if bounds_ms else None


def _refuse(request: Request, reply: Reply, error: ModelyardError, *, backend: ServedBackend | None = None) -> None:
    if reply.closed:
        return
    status, body = write_openai_error(error, request_id=request.id)
    headers, close = error_headers(error)
    if backend is not None and not close:
        headers = type(headers)(backend.headers + headers)
    reply.send(status, body, headers=headers, close=close)
