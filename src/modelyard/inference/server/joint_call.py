"""Several predictions of one form that came in one turn: one call for the batcher, one account entry, one writing.

Each request keeps what is its own: its connection, its rows, its answer. Whatever does not go well for all is done
again for each.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http.turns import Answers, Arrival, Turn
from modelyard.foundation.http.wire import HeaderLines
from modelyard.inference.batching import Call
from modelyard.inference.protocol import Lot, Written, write_infer, write_together
from modelyard.inference.routing import Entry, ServedBackend, Service
from modelyard.inference.server.answers import send_error, unwritable

Array = np.ndarray[Any, Any]
_log = logging.getLogger(__name__)
_BINARY = "application/octet-stream"
_JSON = "application/json"


class JointCall(Call):
    """Requests of one form with their places in a turn, each with as many rows."""

    __slots__ = ("_arrivals", "_backend", "_entry", "_lot", "_service", "_turn", "count")

    def __init__(  # noqa: PLR0913  (one object a turn, filled once)
        self,
        lot: Lot,
        arrivals: list[Arrival],
        turn: Turn,
        *,
        service: Service,
        backend: ServedBackend,
        entry: Entry,
        started: float = 0.0,
    ) -> None:
        assert lot.inputs is not None
        assert backend.signature is not None
        assert backend.signature.single is not None
        began = started or turn.began
        super().__init__(
            {backend.signature.single.name: lot.inputs},
            len(arrivals) * lot.form.rows,
            started=began,
            deadline=began + service.deadline_s,
        )
        self.count = len(arrivals)
        self._lot = lot
        self._arrivals = arrivals
        self._turn = turn
        self._service = service
        self._backend = backend
        self._entry = entry

    def cut(self, most: int) -> "Sequence[JointCall]":
        """This call, or several for at most `most` requests each."""
        if self.count <= most:
            return (self,)
        return [self._part(first, min(first + most, self.count)) for first in range(0, self.count, most)]

    def apart(self) -> "Sequence[JointCall]":
        """The single requests."""
        return self.cut(1)

    def is_wanted(self) -> bool:
        """Let those go whose clients have gone."""
        there = [index for index, arrival in enumerate(self._arrivals) if not arrival[0].is_gone]
        gone = self.count - len(there)
        if gone:
            self._entry.leave(gone)
            self._lose(gone)
            rows = self._lot.form.rows
            ((name, array),) = self.inputs.items()
            parts = [array[index * rows : (index + 1) * rows] for index in there]
            self._arrivals = [self._arrivals[index] for index in there]
            self.inputs = {name: np.concatenate(parts)} if parts else {name: array[:0]}
            self.count = len(there)
            self.rows = self.count * rows
        self.settled = self.settled or not there
        return bool(there)

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Answer each with its prediction."""
        backend = self._backend
        assert backend.signature is not None
        try:
            written = write_together(
                self._lot.form,
                outputs,
                self.count,
                signature=backend.signature,
                version=backend.backend.version,
                model_name=backend.key.service,
            )
        except Exception:  # noqa: BLE001  (the request edge: which answer cannot be written shows when each is)
            written = None
        if written is None:
            self._write_each(outputs)
            return
        self._entry.leave(self.count)
        self._answered(self._send(written))

    def fail(self, error: ModelyardError) -> None:
        """Answer each with an error."""
        self._entry.leave(self.count)
        for arrival in self._arrivals:
            self._fail_one(arrival, error)

    def drop(self) -> None:
        """Book requests whose clients have gone."""
        self._entry.leave(self.count)
        self._lose(self.count)

    def _send(self, written: Written) -> int:
        headers = self._backend.headers
        kind = _JSON
        if written.json_size is not None:
            kind = _BINARY
            headers = HeaderLines(headers + b"inference-header-content-length: %d\r\n" % written.json_size)
        answers = Answers(written.opening, written.middles, written.closing)
        return self._turn.answer(self._arrivals, answers, content_type=kind, headers=headers, began=self.started)

    def _answered(self, given: int) -> None:
        """So many got their predictions."""
        self._lose(self.count - given)
        self.count = given
        self.ok = given > 0

    def _write_each(self, outputs: Mapping[str, Array]) -> None:
        """Write the answers one by one: an output that is not plain numbers, or one that cannot be written."""
        self._entry.leave(self.count)
        rows = self._lot.form.rows
        given = 0
        for index, arrival in enumerate(self._arrivals):
            own = {name: array[index * rows : (index + 1) * rows] for name, array in outputs.items()}
            given += self._write_one(arrival, own)
        self.count = given
        self.ok = given > 0

    def _write_one(self, arrival: Arrival, outputs: Mapping[str, Array]) -> bool:
        backend = self._backend
        assert backend.signature is not None
        if arrival[0].is_gone:
            self._lose(1)
            return False
        try:
            encoded = write_infer(
                self._lot.form.request,
                outputs,
                signature=backend.signature,
                version=backend.backend.version,
                model_name=backend.key.service,
            )
        except ModelyardError as error:
            self._fail_one(arrival, error)
            return False
        except Exception as error:  # noqa: BLE001  (the request edge: one answer that cannot be written)
            _log.exception("an answer cannot be written")
            self._fail_one(arrival, unwritable(error))
            return False
        connection, head, body = arrival
        pair = connection.single_out(head, body)
        if pair is None:
            self._lose(1)
            return False
        if encoded.json_size is None:
            pair[1].send(200, encoded.body, headers=backend.headers)
        else:
            size = b"inference-header-content-length: %d\r\n" % encoded.json_size
            pair[1].send(200, encoded.body, content_type=_BINARY, headers=HeaderLines(backend.headers + size))
        return True

    def _fail_one(self, arrival: Arrival, error: ModelyardError) -> None:
        connection, head, body = arrival
        self._service.book_failure(error)
        pair = connection.single_out(head, body)
        if pair is not None:
            send_error(*pair, error, headers=self._backend.headers)

    def _lose(self, count: int) -> None:
        for _ in range(count):
            self._service.measures.lost("cancelled", "cancelled")

    def _part(self, first: int, end: int) -> "JointCall":
        rows = self._lot.form.rows
        part = Lot(self._lot.form)
        ((_, array),) = self.inputs.items()
        part.inputs = array[first * rows : end * rows]
        call = JointCall(
            part,
            self._arrivals[first:end],
            self._turn,
            service=self._service,
            backend=self._backend,
            entry=self._entry,
            started=self.started,
        )
        call.deadline = self.deadline
        return call
