"""Labels beside probabilities: the extra BYTES output that a contract's `labelling` promises."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelyard.domain.contract import LabelSource, ModelContract

Array = np.ndarray[Any, Any]


class Labeller:
    """Computes the label output of a contract from the runtime's outputs."""

    def __init__(self, contract: ModelContract) -> None:
        rule = contract.labelling
        if rule is None:
            raise ValueError("the contract has no labelling")
        self._source = rule.source
        self._output = rule.output
        self._by_position = rule.rule is LabelSource.INDEX
        self._keeps_source = any(spec.name == rule.source for spec in contract.outputs)
        self._labels = np.empty(len(contract.labels), dtype=object)
        self._labels[:] = [label.encode() for label in contract.labels]

    def add(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """`outputs` with the labels first, one a row; without the source where the contract does not list it."""
        values = outputs[self._source]
        positions = values.reshape(len(values)) if self._by_position else _best(values)
        labelled: dict[str, Array] = {self._output: self._labels[positions]}
        kept = outputs.items() if self._keeps_source else [item for item in outputs.items() if item[0] != self._source]
        return labelled | dict(kept)


def _best(values: Array) -> Array:
    if values.ndim > 1 and values.shape[-1] > 1:
        best: Array = values.reshape(len(values), -1).argmax(axis=1)
        return best
    return (values.reshape(len(values)) > 0.5).astype(np.intp)  # noqa: PLR2004  (one score: that of the second class)
