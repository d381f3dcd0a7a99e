"""A queue that gathers nothing: each call is a task of its own, because what answers it gathers by itself.

To the listeners it is the same as a batcher in front of a model. Bounded by the bound of the service on requests in
flight.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from time import perf_counter

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded
from modelyard.inference.batching.batcher import BatchLimits, Observer
from modelyard.inference.batching.call import Array, Call

_log = logging.getLogger(__name__)


class EachAlone(ABC):
    """Answers every call by `answer`; each is answered, failed or dropped exactly once. `name` is that of the tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, observer: Observer, name: str) -> None:
        self.limits = BatchLimits(max_rows=1, longest=0)
        self._loop = loop
        self._observer = observer
        self._name = name
        self._running: dict[Call, asyncio.Task[None]] = {}

    @abstractmethod
    async def answer(self, call: Call) -> Mapping[str, Array]:
        """The outputs that `call` asks for; cancelled when the call was settled meanwhile."""

    @abstractmethod
    def unforeseen(self) -> ModelyardError:
        """What a caller is told where `answer` raised something that is none of our errors."""

    @property
    def pending(self) -> int:
        """Calls that are under way."""
        return len(self._running)

    @property
    def may_wait(self) -> bool:
        """A call waits for others: its client can go meanwhile."""
        return True

    def submit(self, call: Call) -> None:
        """Take `call`; it is answered, failed or dropped, exactly once."""
        self._running[call] = self._loop.create_task(self._run(call), name=self._name)

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone; whoever works for it is let go of."""
        task = self._running.pop(call, None)
        if not call.settled:
            call.settled = True
            call.drop()
        if task is not None:
            task.cancel()

    def wake(self) -> None:  # noqa: B027  (nothing to do for whoever inherits it, too)
        """Nothing waits here that could go on."""

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that is under way."""
        for call, task in list(self._running.items()):
            self._settle(call, error)
            task.cancel()

    async def _run(self, call: Call) -> None:
        began = perf_counter()
        try:
            outputs = await self.answer(call)
        except DeadlineExceeded as error:  # that the time was up is no failure of what was asked
            self._settle(call, error)
        except ModelyardError as error:
            self._observer.failed(error, 1)
            self._settle(call, error)
        except Exception as error:  # noqa: BLE001  (the edge of a task: whatever tensors and answers may lead to)
            _log.exception("%s: what came could not be used", self._name)
            self._observer.failed(error, 1)
            self._settle(call, self.unforeseen())
        else:
            self._running.pop(call, None)
            if not call.settled:
                call.settled = True
                self._observer.ran([call], call.rows, began=began, took=perf_counter() - began)
                call.succeed(outputs)
                self._observer.answered([call], perf_counter())

    def _settle(self, call: Call, error: ModelyardError) -> None:
        self._running.pop(call, None)
        if not call.settled:
            call.settled = True
            call.fail(error)
