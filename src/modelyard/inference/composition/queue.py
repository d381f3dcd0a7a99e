"""The queue in front of a graph: to the listeners, the same as a batcher in front of a model.

Requests are not gathered here but in the queues of the parts, where those of this graph meet all others.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.inference.batching import BatchLimits, Call, Observer
from modelyard.inference.composition.asking import Asked
from modelyard.inference.composition.executor import GraphExecutor

_log = logging.getLogger(__name__)
Tell = Callable[[Call, dict[str, int]], None]
"""Is told, before the answer is written, which revisions of which services took part."""


class GraphQueue:
    """One task a request; bounded by the service's own bound on requests in flight."""

    def __init__(
        self, executor: GraphExecutor, loop: asyncio.AbstractEventLoop, *, observer: Observer, tell: Tell
    ) -> None:
        self.limits = BatchLimits(max_rows=1, longest=0)
        self.executor = executor
        self._loop = loop
        self._observer = observer
        self._tell = tell
        self._running: dict[Call, asyncio.Task[None]] = {}

    @property
    def pending(self) -> int:
        """Calls that are under way."""
        return len(self._running)

    @property
    def may_wait(self) -> bool:
        """A call waits for its parts: its client can go meanwhile."""
        return True

    def submit(self, call: Call) -> None:
        """Take `call`; it is answered, failed or dropped, exactly once."""
        self._running[call] = self._loop.create_task(self._run(call), name="graph")

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone; its parts are let go of."""
        task = self._running.pop(call, None)
        if not call.settled:
            call.settled = True
            call.drop()
        if task is not None:
            task.cancel()

    def wake(self) -> None:
        """Nothing waits here that could go on."""

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that is under way."""
        for call, task in list(self._running.items()):
            self._settle(call, error)
            task.cancel()

    async def _run(self, call: Call) -> None:
        began = perf_counter()
        asked = Asked(deadline=call.deadline, priority=call.priority, parameters=call.parameters, fields=call.fields)
        try:
            outputs = await self.executor.run(call.inputs, asked)
        except ModelyardError as error:
            self._observer.failed(error, 1)
            self._tell(call, asked.used)
            self._settle(call, error)
        except Exception as error:  # noqa: BLE001  (the edge of a task: whatever the parts' tensors may lead to)
            _log.exception("a graph could not be carried out")
            self._observer.failed(error, 1)
            self._settle(call, RunFailed("the graph could not be carried out", hint="the server's log has the reason"))
        else:
            self._running.pop(call, None)
            if not call.settled:
                call.settled = True
                self._observer.ran([call], call.rows, began=began, took=perf_counter() - began)
                self._tell(call, asked.used)
                call.succeed(outputs)
                self._observer.answered([call], perf_counter())

    def _settle(self, call: Call, error: ModelyardError) -> None:
        self._running.pop(call, None)
        if not call.settled:
            call.settled = True
            call.fail(error)
