"""How a plain call is answered, whatever it asks: read, answer, refuse, log. One answer or one status, no traceback."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from time import perf_counter
from typing import Any, Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http2 import METHOD, Call
from modelyard.inference.grpc.asked import Asked, asked_of
from modelyard.inference.grpc.messages import POOL, message, parse
from modelyard.inference.grpc.settings import LogLine
from modelyard.inference.grpc.statuses import refuse, who_answered
from modelyard.inference.protocol import status_of as http_status_of
from modelyard.inference.routing import ServedBackend

_OK: Final = 200
_CANCELLED: Final = 499
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Question:
    """One call that asks something. `backend` is set once it is known who answers."""

    asked: Asked
    request_id: str
    backend: ServedBackend | None = None


Answer = Callable[[Any, Question], Any]
"""Takes the message; gives the answer, or something to wait for that gives it."""


class Plain:
    """Wraps the answers of a service into what takes calls. Answers that have to be waited for are tasks of its own."""

    def __init__(self, access_log: LogLine | None) -> None:
        self._access_log = access_log
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self, service: str, answers: dict[str, Answer]) -> dict[bytes, Callable[[Call], None]]:
        """The methods of `service` that `answers` answers, by path."""
        found = {}
        for method in POOL.FindServiceByName(service).methods:
            if method.name in answers:
                path = f"/{service}/{method.name}"
                found[path.encode()] = self._method(path, message(method.input_type.full_name), answers[method.name])
        return found

    def _method(self, path: str, kind: Any, answer: Answer) -> Callable[[Call], None]:  # noqa: ANN401  (a protobuf class)
        def take(call: Call) -> None:
            began = perf_counter()
            asked = asked_of(call.head)
            turn = _Turn(self._access_log, path, call, Question(asked, asked.request_id()), began)
            try:
                found = answer(parse(kind, call.message), turn.question)
                if isawaitable(found):
                    self._wait(turn, found)
                else:
                    turn.reply(found)
            except ModelyardError as error:
                turn.refuse(error)
            except Exception:  # noqa: BLE001  (the request edge: what nobody foresaw is logged and answered INTERNAL)
                turn.fail()

        return take

    def _wait(self, turn: "_Turn", found: Awaitable[Any]) -> None:
        async def settle() -> None:
            try:
                turn.reply(await found)
            except ModelyardError as error:
                turn.refuse(error)
            except Exception:  # noqa: BLE001  (as above)
                turn.fail()

        task = asyncio.get_running_loop().create_task(settle(), name=turn.path)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One call on its way to its answer."""

    access_log: LogLine | None
    path: str
    call: Call
    question: Question
    began: float

    def reply(self, answer: Any) -> None:  # noqa: ANN401  (of protobuf)
        """Answer with a message."""
        data = answer.SerializeToString()
        question = self.question
        trailing = [(b"x-request-id", question.request_id.encode())]
        if question.backend is not None:
            trailing += who_answered(question.backend)
        self.call.reply(data, trailing)
        self._book(_CANCELLED if self.call.cancelled else _OK, len(data))

    def refuse(self, error: ModelyardError) -> None:
        """Answer with an error."""
        refuse(self.call, error, request_id=self.question.request_id, backend=self.question.backend)
        self._book(http_status_of(type(error)), 0)

    def fail(self) -> None:
        """Answer with INTERNAL; the reason is in the log."""
        _log.exception("a call failed", extra={"path": self.path, "request_id": self.question.request_id})
        self.refuse(unexpected())

    def _book(self, status: int, sent: int) -> None:
        if self.access_log is not None:
            self.access_log(METHOD, self.path, status, perf_counter() - self.began, sent)


def unexpected() -> ModelyardError:
    """What is said of a failure that nobody foresaw."""
    return ModelyardError(ModelyardError.title, hint="the server's log has the reason under the request id")
