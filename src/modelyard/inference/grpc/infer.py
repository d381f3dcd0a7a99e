"""`ModelInfer`: admit, read, line up. The hot path of this listener; nothing in it waits or schedules anything.

What is known again by its head (`known`) is neither parsed nor checked twice; everything else is read in full. Every
way out is booked in the service's account.
"""

from time import perf_counter
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http2 import METHOD
from modelyard.foundation.http2 import Call as Rpc
from modelyard.inference.admission import ANYONE, Caller, Gate, Hold
from modelyard.inference.grpc.asked import Asked, asked_of
from modelyard.inference.grpc.calls import GrpcCall, deadline_of
from modelyard.inference.grpc.known import Found, Known, KnownHeads
from modelyard.inference.grpc.messages import InferRequestMessage, parse
from modelyard.inference.grpc.names import INFERENCE
from modelyard.inference.grpc.reading import read_message
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.grpc.statuses import refuse
from modelyard.inference.grpc.writing import Writer
from modelyard.inference.protocol import InferRequest
from modelyard.inference.protocol import status_of as http_status_of
from modelyard.inference.routing import ServedBackend, Service, Switchboard
from modelyard.inference.server.reach import service_to_ask

PATH: Final = f"/{INFERENCE}/ModelInfer"
_OK: Final = 200
_CANCELLED: Final = 499
_ID: Final = b"\0\x0cx-request-id"  # a literal header field without indexing (RFC 7541 section 6.2.2)
Made = TypeVar("Made", bound=GrpcCall)


class InferCall(GrpcCall):
    """A prediction that came as a call of its own."""

    __slots__ = ("_access_log", "_request_id", "rpc")

    def expect(self, rpc: Rpc, request_id: str, access_log: LogLine | None) -> None:
        """Say where the answer goes."""
        self.rpc = rpc
        self._request_id = request_id
        self._access_log = access_log

    @property
    def is_gone(self) -> bool:
        """Whether the client gave the call up."""
        return self.rpc.cancelled

    def answer(self, body: bytes) -> None:
        """Answer with the prediction."""
        identity = self._request_id.encode()
        self.rpc.reply_encoded(body, b"%b%b%c%b" % (self._writer.trailers, _ID, len(identity), identity))
        if self._access_log is not None:
            self._access_log(METHOD, PATH, _OK, perf_counter() - self.started, len(body))

    def refuse(self, error: ModelyardError) -> None:
        """Answer with an error."""
        refuse(self.rpc, error, request_id=self._request_id, backend=self.backend)
        self._book(http_status_of(type(error)))

    def gave_up(self) -> None:
        """The client has gone."""
        self._book(_CANCELLED)

    def _book(self, status: int) -> None:
        if self._access_log is not None:
            self._access_log(METHOD, PATH, status, perf_counter() - self.started, 0)


class Refused(Exception):
    """A prediction that was not taken, and who would have answered it, where that was known already."""

    def __init__(self, error: ModelyardError, backend: ServedBackend | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.backend = backend


class Reception:
    """Admits and reads predictions, those of streams as well."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._heads = KnownHeads()
        self._writers: WeakKeyDictionary[ServedBackend, Writer] = WeakKeyDictionary()

    def services_changed(self) -> None:
        """There may be other models now."""
        self._heads.forget()

    def take(self, body: bytes, asked: Asked, timeout_s: float | None, *, kind: type[Made]) -> Made:
        """Admit and read one prediction. It is counted in; `line_up` is what has to follow.

        Raises:
            Refused: nothing waits for it; it is booked.
        """
        started = perf_counter()
        known = self._heads.find(body)
        message = None
        try:
            if known is None:
                message = parse(InferRequestMessage, body)
                model, version = message.model_name, message.model_version or None
            else:
                model, version = known.model, known.version
            keys = self._board.keys
            caller = keys.identify(asked.authorization) if keys.required else ANYONE
            service = None if known is None else _same_service(known.service, caller, asked.project)
            if service is None:
                service = service_to_ask(self._board, caller, asked.project, model)
            gate = _enter(service, caller, asked)
        except ModelyardError as error:
            raise Refused(error, None) from error
        backend: ServedBackend | None = None
        try:
            backend = service.choose(asked.fields) if version is None else service.at_version(version)
            request, raw, writer = self._read(body, message, known, service, backend)
        except ModelyardError as error:
            service.leave(gate)
            service.measures.rejected(error.code)
            raise Refused(error, backend) from error
        return kind(
            request,
            raw=raw,
            service=service,
            backend=backend,
            writer=writer,
            gate=gate,
            started=started,
            deadline=deadline_of(service, request, timeout_s, started=started),
        )

    def _read(
        self,
        body: bytes,
        message: Any,  # noqa: ANN401  (of protobuf)
        known: Known | None,
        service: Service,
        backend: ServedBackend,
    ) -> tuple[InferRequest, bool, Writer]:
        """The request, whether its answer is to be raw, and who writes that."""
        if known is not None and known.backend is backend:
            request = known.read(body)
            if request is not None:
                return request, True, known.writer
        assert backend.signature is not None
        if message is None:
            message = parse(InferRequestMessage, body)
        request, raw = read_message(message, backend.signature)
        writer = self._writers.get(backend)
        if writer is None:
            writer = self._writers[backend] = Writer(backend)
        if raw:
            self._heads.learn(body, message, request, Found(service, backend, writer))
        return request, raw, writer


def _same_service(service: Service, caller: Caller, project: str | None) -> Service | None:
    """`service`, if this caller means it and may ask it; else the long way says what there is to say."""
    meant = (project or caller.project) == service.project
    return service if meant and caller.may(Verb.INFER, service.project, service.name) else None


def _enter(service: Service, caller: Caller, asked: Asked) -> Gate | Hold | None:
    measures = service.measures
    measures.received.add()
    try:
        return service.enter(caller.allowance, asked.fields)
    except ModelyardError as error:
        measures.rejected(error.code)
        raise


class Infer:
    """Answers `ModelInfer`."""

    def __init__(self, reception: Reception, access_log: LogLine | None) -> None:
        self._reception = reception
        self._access_log = access_log

    def __call__(self, rpc: Rpc) -> None:
        """Take one call."""
        asked = asked_of(rpc.head)
        try:
            call = self._reception.take(rpc.message, asked, asked.timeout_s, kind=InferCall)
        except Refused as refused:
            error = refused.error
            refuse(rpc, error, request_id=asked.request_id(), backend=refused.backend)
            if self._access_log is not None:
                self._access_log(METHOD, PATH, http_status_of(type(error)), 0.0, 0)
            return
        call.expect(rpc, asked.request_id(), self._access_log)
        rpc.on_cancel(call.forget)
        call.line_up()
