"""One part asked on behalf of a graph: a call like any other in that part's queue."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from modelyard.domain.errors.base import MAX_TEXT, ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.graph import Step
from modelyard.inference.batching import Call, Queue
from modelyard.inference.protocol import Signature

Array = np.ndarray[Any, Any]


@dataclass(slots=True, eq=False)
class Asked:
    """What all parts of one request share. `used` collects which revision of each service answered."""

    deadline: float
    priority: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[bytes, bytes] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)


class Asker(Protocol):
    """Knows the parts that are held here."""

    async def ask(self, step: Step, inputs: Mapping[str, Array], asked: Asked) -> dict[str, Array]:
        """The outputs of a leaf for `inputs`, which are named as the part names them.

        Raises:
            ModelyardError: the part does not answer.
        """


class PartCall(Call):
    """A call whose answer goes back into a graph."""

    __slots__ = ("future",)

    def __init__(self, inputs: dict[str, Array], rows: int, *, deadline: float) -> None:
        super().__init__(inputs, rows, started=perf_counter(), deadline=deadline)
        self.future: asyncio.Future[dict[str, Array]] = asyncio.get_running_loop().create_future()

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Hand the outputs on."""
        self.ok = True
        if not self.future.done():
            self.future.set_result(dict(outputs))

    def fail(self, error: ModelyardError) -> None:
        """Hand the error on."""
        if not self.future.done():
            self.future.set_exception(error)

    def drop(self) -> None:
        """The graph's own client has gone."""
        self.future.cancel()


async def ask_queue(queue: Queue, signature: Signature, inputs: Mapping[str, Array], asked: Asked) -> dict[str, Array]:
    """Ask whatever stands behind `queue`, together with everybody else who asks it now.

    Raises:
        RunFailed: the tensors that other parts gave do not fit this one.
        ModelyardError: the part does not answer.
    """
    fitted = {one.name: _fit(inputs[one.name], one.name, signature) for one in signature.inputs.values()}
    rows = signature.rows_of(next(iter(fitted.values())).shape)
    call = PartCall(fitted, rows, deadline=asked.deadline)
    call.priority = asked.priority
    if signature.varies:
        call.shape_key = signature.shape_key(fitted)
    queue.submit(call)
    try:
        return await call.future
    except asyncio.CancelledError:
        queue.discard(call)
        if call.future.done() and not call.future.cancelled():
            call.future.exception()  # looked at, so that asyncio does not complain that nobody did
        raise


def _fit(array: Array, name: str, signature: Signature) -> Array:
    wanted = signature.inputs[name]
    shape = wanted.fit(array.shape)
    if shape is None:
        raise RunFailed(
            f"its input {name} takes {list(wanted.shape)}, and got {list(array.shape)}",
            hint="the owner of the graph has to look",
        )
    if array.dtype != wanted.dtype:
        array = array.astype(wanted.dtype)
    return array.reshape(shape)


def part_error(error: ModelyardError, path: str, step: Step) -> ModelyardError:
    """The same error, saying which part of the graph it comes from."""
    named = error.__class__.__new__(error.__class__)
    named.__dict__.update(error.__dict__)
    name = step.service or step.model or step.node or ""
    named.detail = f"the part {step.name} ({name}): {error.detail}"[:MAX_TEXT]
    named.details = ({"part": f"{path}.{step.name}", "asked": name}, *error.details)
    named.example = None
    named.args = (named.detail,)
    named.__cause__ = error.__cause__
    return named
