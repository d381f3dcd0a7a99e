"""The queue in front of a V2 upstream: to the listeners, the same as a batcher in front of a model."""

import asyncio
import logging
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded, UpstreamFailed
from modelyard.inference.batching import BatchLimits, Call, Observer
from modelyard.inference.upstreams.v2 import V2Upstream

_log = logging.getLogger(__name__)


class UpstreamQueue:
    """Each call is one request there; how they are gathered is the upstream's business. Bounded by the service."""

    def __init__(self, upstream: V2Upstream, loop: asyncio.AbstractEventLoop, *, observer: Observer) -> None:
        self.limits = BatchLimits(max_rows=1, longest=0)
        self._upstream = upstream
        self._loop = loop
        self._observer = observer
        self._asking: dict[Call, asyncio.Task[None]] = {}

    @property
    def pending(self) -> int:
        """Calls that are under way."""
        return len(self._asking)

    @property
    def may_wait(self) -> bool:
        """A call waits for the upstream: its client can go meanwhile."""
        return True

    def submit(self, call: Call) -> None:
        """Take `call`; it is answered, failed or dropped, exactly once."""
        self._asking[call] = self._task(self._ask(call))

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone; the upstream is told by a closed connection."""
        task = self._asking.pop(call, None)
        if not call.settled:
            call.settled = True
            call.drop()
        if task is not None:
            task.cancel()

    def wake(self) -> None:
        """Nothing waits here that could go on."""

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that is under way."""
        for call in list(self._asking):
            self._settle(call, error)

    def _task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self._loop.create_task(work, name="ask an upstream")

    async def _ask(self, call: Call) -> None:
        began = perf_counter()
        try:
            async with asyncio.timeout(max(0.0, call.deadline - began)):
                outputs = await self._upstream.infer(call.inputs)
        except TimeoutError:
            self._settle(call, DeadlineExceeded("the upstream's answer was not there by the deadline"))
        except ModelyardError as error:
            self._observer.failed(error, 1)
            self._settle(call, error)
        except Exception as error:  # noqa: BLE001  (the edge of a task: one answer that nobody foresaw)
            _log.exception("an upstream's answer could not be used")
            self._observer.failed(error, 1)
            self._settle(call, UpstreamFailed("the upstream's answer could not be used"))
        else:
            now = perf_counter()
            self._asking.pop(call, None)
            if not call.settled:
                call.settled = True
                self._observer.ran([call], call.rows, began=began, took=now - began)
                call.succeed(outputs)
                self._observer.answered([call], perf_counter())

    def _settle(self, call: Call, error: ModelyardError) -> None:
        self._asking.pop(call, None)
        if not call.settled:
            call.settled = True
            call.fail(error)
