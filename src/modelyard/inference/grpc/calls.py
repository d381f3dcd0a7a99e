"""One prediction between the gRPC listener and a batcher, admitted and booked exactly as one that came over HTTP.

Both kinds of call stand in one queue, so a gRPC and an HTTP request share a run.
"""

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.inference.admission import Gate, Hold
from modelyard.inference.batching import Call
from modelyard.inference.grpc.asked import Asked
from modelyard.inference.grpc.reading import read_message
from modelyard.inference.grpc.writing import write_message
from modelyard.inference.protocol import InferRequest
from modelyard.inference.routing import ServedBackend, Service, Switchboard
from modelyard.inference.server.reach import backend_of, service_to_ask

Array = np.ndarray[Any, Any]
_log = logging.getLogger(__name__)


class GrpcCall(Call):
    """A request that waits for its answer: `future` gets the ModelInferResponse, or the error."""

    __slots__ = ("_gate", "_parsed", "_raw", "_service", "backend", "future")

    def __init__(  # noqa: PLR0913  (one object a request, filled once)
        self,
        parsed: InferRequest,
        *,
        raw: bool,
        service: Service,
        backend: ServedBackend,
        gate: Gate | Hold | None,
        started: float,
        deadline: float,
    ) -> None:
        super().__init__(parsed.inputs, parsed.rows, started=started, deadline=deadline)
        self.priority = parsed.priority
        self.backend = backend
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._parsed = parsed
        self._raw = raw
        self._service = service
        self._gate = gate

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Hand the answer to whoever waits."""
        if self.future.done():
            self.drop()
            return
        backend = self.backend
        assert backend.signature is not None
        try:
            answer = write_message(
                self._parsed,
                outputs,
                raw=self._raw,
                signature=backend.signature,
                version=backend.backend.version,
            )
        except ModelyardError as error:
            self.fail(error)
            return
        except Exception as error:  # noqa: BLE001  (the request edge: one answer that cannot be written)
            _log.exception("an answer cannot be written")
            self.fail(_unwritable(error))
            return
        self._service.answered(self._gate)
        self.ok = True
        self.future.set_result(answer)

    def fail(self, error: ModelyardError) -> None:
        """Hand the error to whoever waits."""
        self._service.leave(self._gate)
        self._service.book_failure(error, self)
        if not self.future.done():
            self.future.set_exception(error)

    def drop(self) -> None:
        """Book a request whose client has gone.

        A client goes by itself when its deadline passes, and a little before we see it pass: what ends in the last
        tenth of its time was too late, not cancelled.
        """
        self._service.leave(self._gate)
        if perf_counter() >= self.deadline - 0.1 * (self.deadline - self.started):
            self._service.measures.lost("timeout", "deadline_exceeded")
        else:
            self._service.measures.lost("cancelled", "cancelled")

    def forget(self) -> None:
        """The client has gone. A run under way goes on; what waits leaves the queue."""
        batcher = self.backend.batcher
        if batcher is not None:
            batcher.discard(self)
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()  # looked at, so that asyncio does not complain that nobody did


def begin(board: Switchboard, message: Any, asked: Asked) -> GrpcCall:  # noqa: ANN401  (of protobuf)
    """Admit, read and line up one prediction. Every way out is booked in the service's account.

    Raises:
        ModelyardError: it is refused; nothing waits for it.
    """
    started = perf_counter()
    caller = board.keys.identify(asked.authorization)
    service = service_to_ask(board, caller, asked.project, message.model_name)
    measures = service.measures
    measures.received.add()
    try:
        gate = service.enter(caller.allowance)
    except ModelyardError as error:
        measures.rejected(error.code)
        raise
    try:
        backend = backend_of(service, message.model_version or None)
        asked.backend = backend
        assert backend.signature is not None
        assert backend.batcher is not None
        parsed, raw = read_message(message, backend.signature)
    except ModelyardError as error:
        service.leave(gate)
        measures.rejected(error.code)
        raise
    call = GrpcCall(
        parsed,
        raw=raw,
        service=service,
        backend=backend,
        gate=gate,
        started=started,
        deadline=_deadline(service, parsed, asked, started=started),
    )
    if backend.signature.varies:
        call.shape_key = backend.signature.shape_key(parsed.inputs)
    backend.batcher.submit(call)
    return call


def _deadline(service: Service, parsed: InferRequest, asked: Asked, *, started: float) -> float:
    """The earliest of the service's, the request's `timeout` and the call's own."""
    allowed = service.deadline_s
    if parsed.timeout_us:
        allowed = min(allowed, parsed.timeout_us * 1e-6)
    if asked.remaining_s is not None:
        allowed = min(allowed, asked.remaining_s)
    return started + allowed


def _unwritable(error: Exception) -> RunFailed:
    failure = RunFailed("the model's answer cannot be written", hint="the server's log has the reason")
    failure.__cause__ = error
    return failure
