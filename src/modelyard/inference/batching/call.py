"""One request on its way through a batcher."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.domain.errors.base import ModelyardError

Array = np.ndarray[Any, Any]


class Call:
    """What a batcher knows of a request, or of several that came together; the server derives from it to answer.

    `inputs` are checked arrays with `rows` rows each. `shape_key` tells apart requests that cannot share a run
    (variable dimensions that differ); None where the model has none. Times are of `time.perf_counter`. `priority` 1
    goes first, 0 has none (Triton, schedule_policy extension). `settled` is true once the call has its answer, also
    when that was an expired deadline while its run was under way; `ok` that the answer was a prediction; `alone` that
    it shares no run any more. `count` is how many requests it stands for; those whose client has gone no longer
    count.
    """

    count: int = 1

    __slots__ = ("alone", "deadline", "inputs", "ok", "priority", "rows", "settled", "shape_key", "started")

    def __init__(self, inputs: dict[str, Array], rows: int, *, started: float, deadline: float) -> None:
        self.inputs = inputs
        self.rows = rows
        self.started = started
        self.deadline = deadline
        self.shape_key: tuple[tuple[int, ...], ...] | None = None
        self.priority = 0
        self.settled = False
        self.ok = False
        self.alone = False

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request's own parameters, for what decides by them."""
        return {}

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """The request's header fields, names in lower case."""
        return {}

    def name_parts(self, parts: str) -> None:
        """Say with the answer which parts of a graph took part; nothing where nobody is told."""

    @abstractmethod
    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Answer with this call's own rows of the outputs, and set `ok` if that worked. Raises nothing."""

    @abstractmethod
    def fail(self, error: ModelyardError) -> None:
        """Answer with an error. Raises nothing."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the request: its client has gone."""

    def is_wanted(self) -> bool:
        """Whether somebody still waits; asked of calls that had to wait. Who has gone is let go of on the way."""
        return True

    def apart(self) -> "Sequence[Call]":
        """The single requests that this call stands for, each a call of its own."""
        return (self,)
