"""The queue in front of a graph: to the listeners, the same as a batcher in front of a model.

Requests are not gathered here but in the queues of the parts, where those of this graph meet all others.
"""

import asyncio
from collections.abc import Callable, Mapping

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.inference.batching import Call, EachAlone, Observer
from modelyard.inference.composition.asking import Array, Asked
from modelyard.inference.composition.executor import GraphExecutor

Tell = Callable[[Call, dict[str, int]], None]
"""Is told, before the answer is written, which revisions of which services took part."""


class GraphQueue(EachAlone):
    """A call asks the parts of the graph; when it is settled before, they are let go of."""

    def __init__(
        self, executor: GraphExecutor, loop: asyncio.AbstractEventLoop, *, observer: Observer, tell: Tell
    ) -> None:
        super().__init__(loop, observer=observer, name="graph")
        self.executor = executor
        self._tell = tell

    async def answer(self, call: Call) -> Mapping[str, Array]:
        """What the graph makes of the inputs of `call`."""
        asked = Asked(deadline=call.deadline, priority=call.priority, parameters=call.parameters, fields=call.fields)
        try:
            return await self.executor.run(call.inputs, asked)
        finally:
            if not call.settled:
                self._tell(call, asked.used)

    def unforeseen(self) -> ModelyardError:
        """Whatever the parts' tensors may have led to."""
        return RunFailed("the graph could not be carried out", hint="the server's log has the reason")
