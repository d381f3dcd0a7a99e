"""Requests whose answer takes a task of its own: a stream of parts, or the answer of a server elsewhere.

Every way out is booked once, as one request; a client that goes ends the task.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.inference.admission import Gate, Hold
from modelyard.inference.routing import ServedBackend, Service
from modelyard.inference.server.answers import send_error

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class Errand:
    """One request under way, and what counts it out."""

    request: Request
    reply: Reply
    service: Service
    backend: ServedBackend
    gate: Gate | Hold | None
    started: float

    async def carry_out(
        self,
        work: Coroutine[Any, Any, bool],
        *,
        allowed_s: float | None,
        write: Callable[[ModelyardError], bytes],
        refuse: Callable[[ModelyardError], None],
        unforeseen: Callable[[], ModelyardError],
    ) -> None:
        """Await `work`, which says whether it answered with a prediction, and book how it ended.

        What goes wrong is said by `refuse`, or, after the answer began, as `write` has it: its last event.
        """
        try:
            async with asyncio.timeout(allowed_s):
                predicted = await work
        except asyncio.CancelledError:
            self.service.leave(self.gate)
            self.service.measures.lost("cancelled", "cancelled")
            raise
        except TimeoutError:
            error: ModelyardError = DeadlineExceeded(
                "the answer was not complete by the deadline", hint="allow more time"
            )
        except ModelyardError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001  (the edge of a task: one answer that nobody foresaw)
            _log.exception("an answer could not be passed on", extra={"request_id": self.request.id})
            error = unforeseen()
            error.__cause__ = raised
        else:
            (self.service.answered if predicted else self.service.leave)(self.gate)
            return
        self._fail(error, write=write, refuse=refuse)

    def _fail(
        self,
        error: ModelyardError,
        *,
        write: Callable[[ModelyardError], bytes],
        refuse: Callable[[ModelyardError], None],
    ) -> None:
        self.service.leave(self.gate)
        self.service.book_failure(error)
        reply = self.reply
        if reply.closed or reply.is_finished:
            return
        if reply.is_answered:
            reply.write(write(error))
            reply.finish()
        else:
            refuse(error)


class Errands:
    """The tasks of a door."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], reply: Reply, *, name: str) -> None:
        """Carry out `work` until it ends, or the client of `reply` goes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

        def end() -> None:  # not before its first step: what never began could not book its end
            task.get_loop().call_soon(task.cancel)

        reply.on_disconnect(end)

    def settle(self, work: Coroutine[Any, Any, None], request: Request, reply: Reply) -> None:
        """Carry out `work`, which answers; what it raises is the answer. It goes on when the client has gone."""

        async def settled() -> None:
            try:
                await work
            except ModelyardError as error:
                send_error(request, reply, error)
            except Exception:  # noqa: BLE001  (the request edge: what nobody foresaw is logged and answered)
                _log.exception("a request failed", extra={"request_id": request.id})
                send_error(request, reply, ModelyardError(ModelyardError.title, hint="the server's log has the reason"))

        task = asyncio.get_running_loop().create_task(settled(), name=request.path)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
