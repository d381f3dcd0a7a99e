"""All services of the gRPC listener together. Whatever needs protobuf is imported from here."""

from collections.abc import Callable
from pathlib import Path

from modelyard.foundation.http2 import Call, Methods, StreamCall
from modelyard.inference.grpc import infer, streaming
from modelyard.inference.grpc.health import WATCH, Health
from modelyard.inference.grpc.names import HEALTH, INFERENCE, REFLECTION
from modelyard.inference.grpc.reflection import Reflection
from modelyard.inference.grpc.rpc import Plain
from modelyard.inference.grpc.service import InferenceService
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.routing import Switchboard
from modelyard.inference.server import Repository


class Services:
    """What answers calls, once it is loaded."""

    def __init__(
        self,
        board: Switchboard,
        metrics: Path,
        repository: Repository,
        *,
        is_ready: Callable[[], bool],
        access_log: LogLine | None,
    ) -> None:
        plain = Plain(access_log)
        self._health = Health(is_ready)
        self._reception = infer.Reception(board)
        self._stream = streaming.StreamInfer(board, self._reception, access_log)
        service = InferenceService(board, metrics, repository, is_ready=is_ready)
        unary: dict[bytes, Callable[[Call], None]] = {
            **plain.methods(INFERENCE, service.answers()),
            **plain.methods(HEALTH, {"Check": self._health.check}),
            infer.PATH.encode(): infer.Infer(self._reception, access_log),
        }
        streams: dict[bytes, Callable[[StreamCall], None]] = {
            streaming.PATH.encode(): self._stream,
            WATCH: self._health.watch,
            **{f"/{name}/ServerReflectionInfo".encode(): Reflection(name, board).info for name in REFLECTION},
        }
        self.methods = Methods(unary, streams)

    def services_changed(self) -> None:
        """Models or readiness may have changed."""
        self._reception.services_changed()
        self._health.changed()

    def drain(self) -> None:
        """End watchers and streams in order."""
        self._health.drain()
        self._stream.drain()
