"""Carry a graph out for one request: steps in order or side by side, rows divided where a switch divides them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.domain.composing import Given
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.graph import ROOT, Graph, Node, NodeKind, Step
from modelyard.inference.composition.asking import Asked, Asker, part_error
from modelyard.inference.composition.choosing import choose_share, choose_switch
from modelyard.inference.composition.combining import combine

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Array]


class GraphExecutor:
    """One graph. `given` says, for each node by name, what its steps promise; `batched` that tensors have rows."""

    def __init__(self, graph: Graph, asker: Asker, given: Mapping[str, Sequence[Given]], *, batched: bool) -> None:
        self._graph = graph
        self._asker = asker
        self._given = given
        self._batched = batched
        self._turns: dict[str, list[int]] = {name: [0] * len(node.steps) for name, node in graph.nodes.items()}

    async def run(self, inputs: Tensors, asked: Asked) -> dict[str, Array]:
        """The outputs of the whole.

        Raises:
            ModelyardError: a part failed; says which.
        """
        return await self._node(ROOT, inputs, asked)

    async def _node(self, name: str, tensors: Tensors, asked: Asked) -> dict[str, Array]:
        node = self._graph.nodes[name]
        match node.kind:
            case NodeKind.SEQUENCE:
                return await self._sequence(name, node, tensors, asked)
            case NodeKind.ENSEMBLE:
                answers = await _together([self._step(name, step, tensors, asked) for step in node.steps])
                return combine(node, answers, self._given[name])
            case NodeKind.SWITCH:
                return await self._switch(name, node, tensors, asked)
            case NodeKind.SPLITTER:
                index = self._share(name, node, asked)
                return await self._step(name, node.steps[index], tensors, asked)

    async def _sequence(self, name: str, node: Node, tensors: Tensors, asked: Asked) -> dict[str, Array]:
        here = dict(tensors)
        outputs: dict[str, Array] = {}
        for step in node.steps:
            outputs = await self._step(name, step, here, asked)
            here |= outputs
        return outputs

    async def _switch(self, name: str, node: Node, tensors: Tensors, asked: Asked) -> dict[str, Array]:
        rows = len(next(iter(tensors.values()))) if self._batched else 1
        choice = choose_switch(node, tensors, asked.parameters, rows=rows)
        if isinstance(choice, int):
            return await self._step(name, node.steps[choice], tensors, asked)
        taken = [int(index) for index in np.unique(choice)]
        places = [np.flatnonzero(choice == index) for index in taken]
        answers = await _together(
            [
                self._step(name, node.steps[index], {key: array[place] for key, array in tensors.items()}, asked)
                for index, place in zip(taken, places, strict=True)
            ]
        )
        order = np.argsort(np.concatenate(places), kind="stable")
        return {key: np.concatenate([answer[key] for answer in answers])[order] for key in answers[0]}

    async def _step(self, name: str, step: Step, tensors: Tensors, asked: Asked) -> dict[str, Array]:
        try:
            if step.node is not None:
                inner = {**tensors, **{key: tensors[of] for key, of in step.inputs.items() if of in tensors}}
                outputs = await self._node(step.node, inner, asked)
            else:
                outputs = await self._asker.ask(step, _Renamed(tensors, step.inputs), asked)
        except ModelyardError as error:
            raise part_error(error, name, step) from error.__cause__
        return {step.outputs.get(key, key): array for key, array in outputs.items()}

    def _share(self, name: str, node: Node, asked: Asked) -> int:
        """By the value of the sticky parameter, else in turn (smooth weighted round robin, as between revisions)."""
        value = None if node.sticky is None else asked.parameters.get(node.sticky)
        if value is not None:
            return choose_share(value, node, name)
        credit = self._turns[name]
        for index, step in enumerate(node.steps):
            credit[index] += step.weight
        best = max(range(len(credit)), key=credit.__getitem__)
        credit[best] -= sum(step.weight for step in node.steps)
        return best


class _Renamed(Mapping[str, Array]):
    """Tensors under the names that a part has for them."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        self._tensors = tensors
        self._names = names

    def __getitem__(self, key: str) -> Array:
        return self._tensors[self._names.get(key, key)]

    def __iter__(self) -> Any:  # noqa: ANN401  (keys)
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


async def _together(branches: Sequence[Any]) -> list[dict[str, Array]]:
    """All of them at once; the first failure ends the others."""
    if len(branches) == 1:
        return [await branches[0]]
    tasks = [asyncio.ensure_future(branch) for branch in branches]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
