"""`ModelStreamInfer`: requests run as they come, answers leave in the order of the requests.

A request that is refused has its error in its own answer, with its id, and the stream goes on. At most `WINDOW`
requests of a stream are unanswered at once; the rest waits unread. While the server drains, a stream is answered what
it has asked and then ended with UNAVAILABLE.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import Unavailable
from modelyard.inference.grpc.asked import Asked
from modelyard.inference.grpc.calls import GrpcCall, begin
from modelyard.inference.grpc.messages import InferRequestMessage, StreamResponseMessage, parse
from modelyard.inference.grpc.rpc import refuse, unexpected
from modelyard.inference.grpc.statuses import CODE, text_of
from modelyard.inference.routing import Switchboard

WINDOW: Final = 64
_FINAL_WANTED: Final = "triton_enable_empty_final_response"
_FINAL: Final = "triton_final_response"
_log = logging.getLogger(__name__)

Pending = tuple[str, bool, GrpcCall | ModelyardError]
"""Id, whether the answer is to say that it is the last of its request, and what answers."""


class StreamInfer:
    """Answers streams."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    def drain(self) -> None:
        """End every stream once it is answered what it has asked."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def answer(self, bodies: AsyncIterator[bytes], context: Any) -> None:  # noqa: ANN401  (of grpc)
        """Answer one stream to its end."""
        asked = Asked.of(context)
        try:
            self._board.keys.identify(asked.authorization)
        except ModelyardError as error:
            await refuse(context, error, asked)
        window: asyncio.Queue[Pending | None] = asyncio.Queue(WINDOW)
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(bodies, context, asked, window))
            self._readers.add(reader)
            try:
                await _answer(window, context)
            finally:
                self._readers.discard(reader)
                reader.cancel()
                _forget(window)
        if self._draining:
            await refuse(context, Unavailable("the server is going away", hint="connect again"), asked)
        context.set_trailing_metadata(asked.trailers())

    async def _read(
        self,
        bodies: AsyncIterator[bytes],
        context: Any,  # noqa: ANN401  (of grpc)
        asked: Asked,
        window: asyncio.Queue[Pending | None],
    ) -> None:
        try:
            if not self._draining:
                async for body in bodies:
                    one = replace(asked, remaining_s=context.time_remaining(), backend=None)
                    await window.put(self._begin(body, one))
        except asyncio.CancelledError:
            if not self._draining:
                raise
        await window.put(None)

    def _begin(self, body: bytes, asked: Asked) -> Pending:
        identity, final = "", False
        try:
            message = parse(InferRequestMessage, body)
            identity = message.id
            final = _FINAL_WANTED in message.parameters and message.parameters[_FINAL_WANTED].bool_param
            return identity, final, begin(self._board, message, asked)
        except ModelyardError as error:
            return identity, final, error
        except Exception:  # noqa: BLE001  (the request edge: one request that nobody foresaw does not end the stream)
            _log.exception("a streamed request failed", extra={"request_id": asked.request_id})
            return identity, final, unexpected()


async def _answer(window: asyncio.Queue[Pending | None], context: Any) -> None:  # noqa: ANN401  (of grpc)
    while (pending := await window.get()) is not None:
        identity, final, call = pending
        answer = StreamResponseMessage()
        if isinstance(call, GrpcCall):
            try:
                answer.infer_response.CopyFrom(await call.future)
            except ModelyardError as error:
                call_error: ModelyardError | None = error
            else:
                call_error = None
            finally:
                call.forget()
        else:
            call_error = call
        if call_error is not None:
            answer.error_message = text_of(call_error)
            answer.infer_response.id = identity
            answer.infer_response.parameters[CODE].string_param = call_error.code
        if final:
            answer.infer_response.parameters[_FINAL].bool_param = True
        await context.write(answer.SerializeToString())


def _forget(window: asyncio.Queue[Pending | None]) -> None:
    while not window.empty():
        pending = window.get_nowait()
        if pending is not None and isinstance(pending[2], GrpcCall):
            pending[2].forget()
