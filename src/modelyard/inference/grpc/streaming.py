"""`ModelStreamInfer`: requests run as they come, answers leave in the order of the requests.

A request that is refused has its error in its own answer, with its id, and the stream goes on. At most `WINDOW`
requests of a stream are unanswered at once, answers that wait for the client's window included; the rest waits unread.
While the server drains, a stream is answered what it has asked and then ended with UNAVAILABLE.
"""

import logging
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.http2 import METHOD, StreamCall
from modelyard.inference.grpc.asked import Asked, asked_of
from modelyard.inference.grpc.calls import GrpcCall
from modelyard.inference.grpc.infer import Reception, Refused
from modelyard.inference.grpc.messages import InferRequestMessage, StreamResponseMessage, parse
from modelyard.inference.grpc.names import INFERENCE
from modelyard.inference.grpc.reading import varint
from modelyard.inference.grpc.rpc import unexpected
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.grpc.statuses import CODE, refuse, text_of
from modelyard.inference.protocol import status_of as http_status_of
from modelyard.inference.routing import Switchboard

WINDOW: Final = 64
MOST_STREAMS: Final = 4096
PATH: Final = f"/{INFERENCE}/ModelStreamInfer"
_ANSWER_TAG: Final = b"\x12"  # ModelStreamInferResponse.infer_response: field 2, length-delimited
_FINAL_WANTED: Final = "triton_enable_empty_final_response"
_FINAL: Final = "triton_final_response"
_OK: Final = 200
_CANCELLED: Final = 499
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pending:
    """One request of a stream: its id, whether its answer says that it is the last, and the answer once it is there."""

    identity: str = ""
    final: bool = False
    call: "StreamedCall | None" = None
    body: bytes | None = None
    error: ModelyardError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the answer is there."""
        return self.body is not None or self.error is not None

    def written(self) -> bytes:
        """The ModelStreamInferResponse, serialised."""
        if self.error is None and not self.final:
            assert self.body is not None
            return _ANSWER_TAG + varint(len(self.body)) + self.body
        answer = StreamResponseMessage()
        if self.body is not None:
            answer.infer_response.MergeFromString(self.body)
        if self.error is not None:
            answer.error_message = text_of(self.error)
            answer.infer_response.id = self.identity
            answer.infer_response.parameters[CODE].string_param = self.error.code
        if self.final:
            answer.infer_response.parameters[_FINAL].bool_param = True
        return bytes(answer.SerializeToString())


class StreamedCall(GrpcCall):
    """A prediction that came in a stream."""

    __slots__ = ("_pending", "_stream")

    def expect(self, stream: "_Stream", pending: _Pending) -> None:
        """Say where the answer goes."""
        self._stream = stream
        self._pending = pending
        pending.call = self

    @property
    def is_gone(self) -> bool:
        """Whether the client gave the stream up."""
        return self._stream.is_gone

    def answer(self, body: bytes) -> None:
        """Hand the prediction to the stream."""
        self._pending.body = body
        self._stream.send_settled()

    def refuse(self, error: ModelyardError) -> None:
        """Hand the error to the stream."""
        self._pending.error = error
        self._stream.send_settled()

    def gave_up(self) -> None:
        """The stream is booked as a whole."""


class StreamInfer:
    """Answers streams."""

    def __init__(self, board: Switchboard, reception: Reception, access_log: LogLine | None) -> None:
        self._board = board
        self.reception = reception
        self.access_log = access_log
        self.streams: set[_Stream] = set()
        self.draining = False

    def drain(self) -> None:
        """End every stream once it is answered what it has asked."""
        self.draining = True
        for stream in list(self.streams):
            stream.drain()

    def __call__(self, rpc: StreamCall) -> None:
        """Take one stream."""
        asked = asked_of(rpc.head)
        stream = _Stream(self, rpc, asked)
        try:
            self._board.keys.identify(asked.authorization)
            if len(self.streams) >= MOST_STREAMS:
                raise Unavailable(f"{MOST_STREAMS} streams are open already", hint="try again later")
        except ModelyardError as error:
            stream.refuse(error)
            return
        self.streams.add(stream)
        rpc.listen(stream.ask, stream.half_close, room=stream.go_on)
        rpc.on_cancel(stream.cancel)
        if self.draining:
            stream.drain()


class _Stream:
    """One stream, from its first request to its trailers."""

    def __init__(self, owner: StreamInfer, rpc: StreamCall, asked: Asked) -> None:
        self._owner = owner
        self._rpc = rpc
        self._asked = asked
        self._request_id = asked.request_id()
        self._began = perf_counter()
        self._pending: deque[_Pending] = deque()
        self._half_closed = False
        self._over = False
        self._sent = 0

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._over

    def ask(self, body: bytes) -> None:
        """One more request."""
        if self._owner.draining:
            return
        pending = _Pending()
        self._pending.append(pending)
        try:
            self._read(body, pending)
        except Refused as refused:
            pending.error = refused.error
        except ModelyardError as error:
            pending.error = error
        except Exception:  # noqa: BLE001  (the request edge: one request that nobody foresaw does not end the stream)
            _log.exception("a streamed request failed", extra={"request_id": self._request_id})
            pending.error = unexpected()
        if len(self._pending) >= WINDOW:
            self._rpc.hold()
        if pending.error is not None:
            self.send_settled()

    def half_close(self) -> None:
        """The client asks nothing more."""
        self._half_closed = True
        self.send_settled()

    def go_on(self) -> None:
        """All that was sent has left: read on."""
        if not self._over and len(self._pending) < WINDOW:
            self._rpc.go_on()

    def send_settled(self) -> None:
        """Send the answers that are there, in order, and end the stream after the last."""
        if self._over:
            return
        pending = self._pending
        while pending and pending[0].is_settled:
            written = pending.popleft().written()
            self._sent += len(written)
            self._rpc.send(written)
        if not pending and (self._half_closed or self._owner.draining):
            self._end()
        elif len(pending) < WINDOW and not self._rpc.backlog:
            self._rpc.go_on()

    def drain(self) -> None:
        """End as soon as what was asked is answered."""
        self.send_settled()

    def cancel(self) -> None:
        """The client gave up: what waits leaves the queue."""
        self._leave(_CANCELLED)
        pending = list(self._pending)
        self._pending.clear()
        for each in pending:
            if each.call is not None and not each.is_settled:
                each.call.forget()

    def refuse(self, error: ModelyardError) -> None:
        """End the stream with `error`."""
        self._leave(http_status_of(type(error)))
        refuse(self._rpc, error, request_id=self._request_id)

    def _end(self) -> None:
        if self._owner.draining and not self._half_closed:
            self.refuse(Unavailable("the server is going away", hint="connect again"))
            return
        self._leave(_OK)
        self._rpc.finish([(b"x-request-id", self._request_id.encode())])

    def _leave(self, status: int) -> None:
        self._over = True
        self._owner.streams.discard(self)
        if self._owner.access_log is not None:
            self._owner.access_log(METHOD, PATH, status, perf_counter() - self._began, self._sent)

    def _read(self, body: bytes, pending: _Pending) -> None:
        timeout_s = self._asked.timeout_s
        if timeout_s is not None:
            timeout_s -= perf_counter() - self._began
        message = parse(InferRequestMessage, body)
        pending.identity = message.id
        pending.final = _FINAL_WANTED in message.parameters and message.parameters[_FINAL_WANTED].bool_param
        call = self._owner.reception.take(body, self._asked, timeout_s, kind=StreamedCall)
        call.expect(self, pending)
        call.line_up()
