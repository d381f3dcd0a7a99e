"""How a call is answered, whatever it asks: read, answer, refuse, log. One answer or one status, never a traceback.

Calls get the message's bytes and read them themselves: grpcio answers a message that it cannot read with INTERNAL,
and a client's mistake is INVALID_ARGUMENT here.
"""

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

import grpc

from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.grpc.asked import Asked
from modelyard.inference.grpc.messages import POOL, message, parse
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.grpc.statuses import metadata_of, status_of, text_of
from modelyard.inference.protocol import status_of as http_status_of

Answer = Callable[[Any, Asked], Any]
_OK: Final = 200
_INTERNAL: Final = 500
_CANCELLED: Final = 499
_log = logging.getLogger(__name__)


class Calls:
    """Wraps what answers into what grpcio calls."""

    def __init__(self, access_log: LogLine | None) -> None:
        self._access_log = access_log

    def handlers(self, service: str, answers: dict[str, Any]) -> Any:  # noqa: ANN401  (of grpc, which is untyped)
        """The methods of `service`, which its descriptor lists; each needs an entry in `answers`."""
        table = {}
        for method in POOL.FindServiceByName(service).methods:
            path = f"/{service}/{method.name}"
            answer, kind = answers[method.name], message(method.input_type.full_name)
            if method.client_streaming:
                table[method.name] = grpc.stream_stream_rpc_method_handler(answer)
            elif method.server_streaming:
                table[method.name] = grpc.unary_stream_rpc_method_handler(answer)
            else:
                table[method.name] = grpc.unary_unary_rpc_method_handler(self.unary(path, kind, answer))
        return grpc.method_handlers_generic_handler(service, table)

    def unary(self, path: str, kind: Any, answer: Any) -> Callable[[bytes, Any], Awaitable[bytes]]:  # noqa: ANN401
        """One message in, one out. `answer` gives the message, or something to wait for that gives it."""
        is_slow = getattr(answer, "is_slow", False)

        async def call(body: bytes, context: Any) -> bytes:  # noqa: ANN401  (a grpc.aio.ServicerContext)
            began = perf_counter()
            asked = Asked.of(context)
            status, sent = _CANCELLED, 0
            try:
                found = answer(parse(kind, body), asked)
                data: bytes = (await found if is_slow else found).SerializeToString()
                context.set_trailing_metadata(asked.trailers())
                status, sent = _OK, len(data)
            except ModelyardError as error:
                status = http_status_of(type(error))
                await refuse(context, error, asked)
                raise
            except Exception:
                status = _INTERNAL
                _log.exception("a call failed", extra={"path": path, "request_id": asked.request_id})
                await refuse(context, unexpected(), asked)
                raise
            else:
                return data
            finally:
                if self._access_log is not None:
                    self._access_log("GRPC", path, status, perf_counter() - began, sent)

        return call


async def refuse(context: Any, error: ModelyardError, asked: Asked) -> None:  # noqa: ANN401  (of grpc)
    """End the call with `error`."""
    who = tuple(pair for pair in asked.trailers() if pair[0] != "x-request-id")
    await context.abort(
        status_of(type(error)), text_of(error), (*metadata_of(error, request_id=asked.request_id), *who)
    )


def unexpected() -> ModelyardError:
    """What is said of a failure that nobody foresaw."""
    return ModelyardError(ModelyardError.title, hint="the server's log has the reason under the request id")
