"""One prediction request between the listener and a batcher: how it is answered, and how it is booked."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.wire import HeaderLines
from modelyard.inference.admission import Gate, Hold
from modelyard.inference.batching import Call
from modelyard.inference.protocol import Encoded, InferRequest
from modelyard.inference.routing import ServedBackend, Service
from modelyard.inference.server.answers import send_error, unwritable

Array = np.ndarray[Any, Any]
Write = Callable[["InferCall", Mapping[str, Array]], Encoded]
_log = logging.getLogger(__name__)
_BINARY = "application/octet-stream"
_JSON = "application/json"


class InferCall(Call):
    """A request with its reply. `write` encodes the answer in the dialect that the request came in."""

    __slots__ = ("_gate", "_reply", "_request", "_service", "_write", "backend", "parsed")

    def __init__(  # noqa: PLR0913  (one object a request, filled once)
        self,
        parsed: InferRequest,
        request: Request,
        reply: Reply,
        *,
        service: Service,
        backend: ServedBackend,
        gate: Gate | Hold | None,
        write: Write,
        started: float,
    ) -> None:
        # what Call.__init__ does, without the price of a second call
        self.inputs = parsed.inputs
        self.rows = parsed.rows
        self.started = started
        self.deadline = started + service.deadline_s
        if parsed.timeout_us:
            self.deadline = min(self.deadline, started + parsed.timeout_us * 1e-6)
        self.shape_key = None
        self.priority = parsed.priority
        self.settled = self.ok = self.alone = False
        self.parsed = parsed
        self.backend = backend
        self._request = request
        self._reply = reply
        self._service = service
        self._gate = gate
        self._write = write

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request's own parameters."""
        return self.parsed.parameters

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """The request's header fields."""
        return self._request.head.fields

    def name_parts(self, parts: str) -> None:
        """Say with the answer which parts took part."""
        self.backend = self.backend.naming(parts)

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Answer with the prediction."""
        reply = self._reply
        if reply.closed:
            self.drop()
            return
        try:
            encoded = self._write(self, outputs)
        except ModelyardError as error:
            self.fail(error)
            return
        except Exception as error:  # noqa: BLE001  (the request edge: one answer that cannot be written)
            _log.exception("an answer cannot be written", extra={"request_id": self._request.id})
            self.fail(unwritable(error))
            return
        self._service.answered(self._gate)
        self.ok = True
        if encoded.json_size is None:
            reply.send(200, encoded.body, headers=self.backend.headers)
        else:
            size = b"inference-header-content-length: %d\r\n" % encoded.json_size
            headers = HeaderLines(self.backend.headers + size)
            reply.send(200, encoded.body, content_type=_BINARY, headers=headers)

    def fail(self, error: ModelyardError) -> None:
        """Answer with an error."""
        service = self._service
        service.leave(self._gate)
        service.book_failure(error, self)
        send_error(self._request, self._reply, error, headers=self.backend.headers)

    def drop(self) -> None:
        """Book a request whose client has gone."""
        self._service.leave(self._gate)
        self._service.measures.lost("cancelled", "cancelled")
