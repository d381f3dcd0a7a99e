"""One prediction between the gRPC listener and a batcher, admitted and booked exactly as one that came over HTTP.

Both kinds of call stand in one queue, so a gRPC and an HTTP request share a run.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.inference.admission import Gate, Hold
from modelyard.inference.batching import Call
from modelyard.inference.grpc.writing import Writer
from modelyard.inference.protocol import InferRequest
from modelyard.inference.routing import ServedBackend, Service

Array = np.ndarray[Any, Any]
_log = logging.getLogger(__name__)


class GrpcCall(Call):
    """A request that waits for its answer. Where the answer goes, derived classes say."""

    __slots__ = ("_gate", "_service", "_writer", "backend", "parsed", "raw")

    def __init__(  # noqa: PLR0913  (one object a request, filled once)
        self,
        parsed: InferRequest,
        *,
        raw: bool,
        service: Service,
        backend: ServedBackend,
        writer: Writer,
        gate: Gate | Hold | None,
        started: float,
        deadline: float,
    ) -> None:
        # what Call.__init__ does, without the price of a second call
        self.inputs = parsed.inputs
        self.rows = parsed.rows
        self.started = started
        self.deadline = deadline
        self.shape_key = None
        self.priority = parsed.priority
        self.settled = self.ok = self.alone = False
        self.parsed = parsed
        self.raw = raw
        self.backend = backend
        self._service = service
        self._writer = writer
        self._gate = gate

    @property
    @abstractmethod
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""

    @abstractmethod
    def answer(self, body: bytes) -> None:
        """Hand over the ModelInferResponse."""

    @abstractmethod
    def refuse(self, error: ModelyardError) -> None:
        """Hand over the error."""

    @abstractmethod
    def gave_up(self) -> None:
        """Nobody waits: note it."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request's own parameters."""
        return self.parsed.parameters

    def name_parts(self, parts: str) -> None:
        """Say with the answer which parts took part."""
        self.backend = self.backend.naming(parts)

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Hand the answer to whoever waits."""
        if self.is_gone:
            self.drop()
            return
        try:
            body = self._writer.write(self.parsed, outputs, raw=self.raw)
        except ModelyardError as error:
            self.fail(error)
            return
        except Exception as error:  # noqa: BLE001  (the request edge: one answer that cannot be written)
            _log.exception("an answer cannot be written")
            self.fail(_unwritable(error))
            return
        self._service.answered(self._gate)
        self.ok = True
        self.answer(body)

    def fail(self, error: ModelyardError) -> None:
        """Hand the error to whoever waits."""
        self._service.leave(self._gate)
        self._service.book_failure(error, self)
        if not self.is_gone:
            self.refuse(error)

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
        self.gave_up()

    def line_up(self) -> None:
        """Stand in the batcher's queue."""
        backend = self.backend
        assert backend.signature is not None
        assert backend.batcher is not None
        if backend.signature.varies:
            self.shape_key = backend.signature.shape_key(self.inputs)
        backend.batcher.submit(self)

    def forget(self) -> None:
        """The client has gone. A run under way goes on; what waits leaves the queue."""
        batcher = self.backend.batcher
        if batcher is not None:
            batcher.discard(self)


def deadline_of(service: Service, parsed: InferRequest, timeout_s: float | None, *, started: float) -> float:
    """The earliest of the service's, the request's `timeout` and the call's own."""
    allowed = service.deadline_s
    if parsed.timeout_us:
        allowed = min(allowed, parsed.timeout_us * 1e-6)
    if timeout_s is not None and timeout_s < allowed:
        allowed = timeout_s
    return started + allowed


def _unwritable(error: Exception) -> RunFailed:
    failure = RunFailed("the model's answer cannot be written", hint="the server's log has the reason")
    failure.__cause__ = error
    return failure
