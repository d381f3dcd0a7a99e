"""What is counted of a revision while it is compared with another: once a batch, after the answers are sent.

A service that nobody watches has none of this: its batcher is not wrapped. What a sketch counts and why is said in
`modelyard.domain.sketches`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import Task
from modelyard.domain.sketches import (
    MOST_LABELS,
    OTHER,
    Sketch,
    label_key,
    latency_bucket,
    number_bucket,
    number_key,
)
from modelyard.inference.batching import Call
from modelyard.inference.protocol import Signature

Array = np.ndarray[Any, Any]
STRETCH_S: Final = 0.05
_MOST_NUMBERS: Final = 2048


class Pairs:
    """Latencies in pairs, one of each side, drawn at random from the same stretch of time.

    Requests that are answered together are slow together, so they are no independent witnesses: a stretch gives one of
    each side, however many there were. It lasts `STRETCH_S` at least, and until all sides have answered. So the sides
    have the same slow moments in the same numbers; the first of each stretch, without the pairing, would not do: a side
    with few requests is more often seen where there are many, which is where everything is slow.
    """

    def __init__(self, sides: int, *, draw: Callable[[], float] = random.random) -> None:
        self.latency: list[dict[int, int]] = [{} for _ in range(sides)]
        self._draw = draw
        self._until = 0.0
        self._met = [0] * sides
        self._held = [0.0] * sides

    def offer(self, side: int, started: Sequence[float], now: float) -> None:
        """Requests of one side that were answered at `now`."""
        if now >= self._until:
            if all(self._met):
                for latency, held in zip(self.latency, self._held, strict=True):
                    bucket = latency_bucket(held)
                    latency[bucket] = latency.get(bucket, 0) + 1
                self._met = [0] * len(self._met)
            if not any(self._met):
                self._until = now + STRETCH_S
        count = len(started)
        self._met[side] += count
        if self._draw() * self._met[side] < count:
            self._held[side] = now - started[int(self._draw() * count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sketch belongs: to one side of an epoch with its shares."""

    epoch: str
    split: str
    side: int
    pairs: Pairs


class RevisionSketch:
    """The counts of one revision in one epoch. Belongs to one event loop. `owner` is the backend as the weights see it.

    Calls that began before the epoch, or went there aside, are not counted.
    """

    def __init__(self, owner: object, signature: Signature, place: "Place") -> None:
        self._owner = owner
        self._place = place
        self._signature = signature
        self._began = perf_counter()
        self._requests = self._failures = 0
        self._predictions: dict[str, int] = {}
        self._labels, self._number = _counted_output(signature)
        self._floats = [name for name, spec in signature.outputs.items() if spec.datatype.is_float]

    def failed(self, call: Call) -> None:
        """A request that the revision spoilt."""
        if self._counts(call):
            self._requests += 1
            self._failures += 1

    def answered(
        self, calls: Sequence[Call], outputs: Mapping[str, Array] | None, now: float, *, took: float = 0.0
    ) -> None:
        """The calls of a run have their answers; `outputs` are those of the whole run, its rows in their order."""
        counted = [index for index, call in enumerate(calls) if call.ok and self._counts(call)]
        if not counted:
            return
        self._requests += len(counted)
        self._place.pairs.offer(self._place.side, [calls[index].started for index in counted], now)
        if outputs is None:
            return
        rows = self._rows(calls, counted)
        bad = self._not_finite(calls, counted, outputs)
        self._failures += len(bad)
        if bad:
            rows = [row for index, row in zip(counted, rows, strict=True) if index not in bad]
        self._predict(outputs, rows)

    def snapshot(self, project: str, service: str, revision: int) -> Sketch:
        """The counts so far."""
        return Sketch(
            project=project,
            service=service,
            revision=revision,
            epoch=self._place.epoch,
            split=self._place.split,
            requests=self._requests,
            failures=self._failures,
            latency=tuple(sorted(self._place.pairs.latency[self._place.side].items())),
            predictions=tuple(sorted(self._predictions.items())),
        )

    def _counts(self, call: Call) -> bool:
        return call.started >= self._began and getattr(call, "backend", None) is self._owner

    def _rows(self, calls: Sequence[Call], counted: Sequence[int]) -> list[int]:
        """The first row of each counted call."""
        if not self._signature.batched:
            return [0] * len(counted)
        starts, row = [], 0
        for call in calls:
            starts.append(row)
            row += call.rows
        return [starts[index] for index in counted]

    def _not_finite(self, calls: Sequence[Call], counted: Sequence[int], outputs: Mapping[str, Array]) -> set[int]:
        """Calls whose answer holds what is no number."""
        bad: set[int] = set()
        for name in self._floats:
            array = outputs.get(name)
            if array is None or np.isfinite(array).all():
                continue
            if not self._signature.batched or len(calls) == 1:
                return set(counted)
            broken = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            ends = np.cumsum([call.rows for call in calls])
            bad.update(np.searchsorted(ends, broken, side="right").tolist())
        return bad.intersection(counted)

    def _predict(self, outputs: Mapping[str, Array], rows: Sequence[int]) -> None:
        if not rows:
            return
        if self._labels is not None and self._labels in outputs:
            values = outputs[self._labels].reshape(-1) if not self._signature.batched else outputs[self._labels]
            for row in rows:
                self._add_label(values[row])
        elif self._number is not None and self._number in outputs:
            array = outputs[self._number]
            first = array.reshape(len(array), -1)[:, 0] if self._signature.batched else array.reshape(-1)
            for row in rows:
                self._add(number_key(number_bucket(float(first[row]))), _MOST_NUMBERS)

    def _add_label(self, value: Any) -> None:  # noqa: ANN401  (an element of BYTES or of whole numbers)
        first = np.asarray(value).reshape(-1)
        if first.size:
            each = first[0]
            text = each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each)
            self._add(label_key(text), MOST_LABELS)

    def _add(self, key: str, most: int) -> None:
        held = self._predictions
        if key not in held and len(held) >= most:
            key = OTHER
        held[key] = held.get(key, 0) + 1


def _counted_output(signature: Signature) -> tuple[str | None, str | None]:
    """The output whose first element is counted as a label, and the one counted as a number; at most one of them."""
    contract = signature.contract
    if contract.labelling is not None and contract.labelling.output in signature.outputs:
        return contract.labelling.output, None
    specs = list(signature.outputs.values())
    texts = [spec.name for spec in specs if not spec.datatype.is_float]
    if contract.task in {Task.CLASSIFICATION, Task.CLUSTERING} and texts:
        return texts[0], None
    numbers = [spec.name for spec in specs if spec.datatype.is_float]
    if numbers:
        return None, numbers[0]
    return (texts[0], None) if texts else (None, None)
