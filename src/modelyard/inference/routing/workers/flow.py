"""One streamed request in a worker's hands: parts come as the caller takes them, and stop when nobody does.

The worker sends at most `WINDOW` parts ahead; each part that is taken allows one more. Whoever closes a flow before its
end tells the worker, which closes the generator of the code.
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded, RunFailed
from modelyard.inference.routing.frames import Failure, Kind, unpack_tensors

Array = np.ndarray[Any, Any]
WINDOW: Final = 8


class StreamFailed(Exception):
    """The model raised inside the worker; the text is for the log."""


class Line(Protocol):
    """The worker's end of a flow."""

    def allow(self, number: int) -> None:
        """One part more may be sent."""

    def forget(self, number: int) -> None:
        """Nobody wants the rest."""


class Flow:
    """Parts of one answer, one after the other. Belongs to the event loop; for one reader."""

    def __init__(self, number: int, line: Line) -> None:
        self.number = number
        self._line = line
        self._parts: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._is_over = False
        self._error: ModelyardError | None = None

    def __aiter__(self) -> "Flow":
        return self

    async def __anext__(self) -> dict[str, Array]:
        """The next part.

        Raises:
            RunFailed: the code raised, or its worker ended.
            DeadlineExceeded: the worker gave up, for its time was over.
        """
        while not self._parts:
            if self._is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        payload = self._parts.popleft()
        if not self._is_over:
            self._line.allow(self.number)
        return unpack_tensors(payload)

    def take(self, kind: Kind, payload: bytes) -> bool:
        """A frame of this flow came; whether it was the last."""
        if kind is Kind.PART:
            self._parts.append(payload)
            self._news.set()
            return False
        match kind:
            case Kind.FAILURE:
                self.end(_failed(msgspec.msgpack.decode(payload, type=Failure)))
            case Kind.DROPPED:
                self.end(DeadlineExceeded("the answer was not complete by the deadline", hint="allow more time"))
            case _:
                self.end(None)
        return True

    def end(self, error: ModelyardError | None) -> None:
        """Nothing more comes."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._news.set()

    def close(self) -> None:
        """The reader wants no more. Idempotent."""
        self._parts.clear()
        if not self._is_over:
            self.end(None)
            self._line.forget(self.number)


def _failed(failure: Failure) -> RunFailed:
    error = RunFailed("the model failed in the middle of its answer", hint="the worker's log has the reason")
    error.__cause__ = StreamFailed(failure.text)
    return error
