"""How much worse a smaller model is, and how much quicker, measured side by side on the same rows.

The drop is in points: hundredths of the rows that are answered wrongly more often than before (classification), or of
the standard deviation by which the error grew (numbers). It comes with its 95 % interval, from the rows' own pairs.
Times are of one thread, the two models in turn, so that what else the machine does meets both alike.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.contract import Labelling, LabelSource, ModelContract, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra
from modelyard.foundation.samples import Sample

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_BATCH: Final = 256
_ROUNDS: Final = 60
_NORMAL_95: Final = 1.96
_ERRORS_ONLY: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How much worse, in points, with its 95 % interval; `before` and `after` are scores where the target is known."""

    points: float
    low: float
    high: float
    rows: int
    measure: str
    before: float | None = None
    after: float | None = None

    def document(self) -> dict[str, Any]:
        """In plain JSON values."""
        return {name: getattr(self, name) for name in ("measure", "points", "low", "high", "rows", "before", "after")}


class Model:
    """An ONNX model with one thread."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime is not installed", hint="pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: "Mapping[str, Array]") -> "dict[str, Array]":
        """All outputs."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))

    def answers(self, sample: Sample, read: "Callable[[Mapping[str, Array]], Array]") -> "Array":
        """What `read` makes of the outputs for all rows."""
        import numpy as np

        parts = [read(self.run(sample.part(begin, begin + _BATCH))) for begin in range(0, sample.rows, _BATCH)]
        return np.concatenate(parts)


class Judge:
    """Compares models with the one that `original` is, on one sample."""

    def __init__(
        self, contract: ModelContract, original: Path | None, sample: Sample, *, before: "Array | None" = None
    ) -> None:
        """`before` is what another model answered, one value a row, where that is to be compared with.

        Without `original` it has to be given.
        """
        self._contract = contract
        self._sample = sample
        self._original = Model(original) if original is not None else None
        self._is_choice = contract.task is Task.CLASSIFICATION or contract.labelling is not None
        self._before = self.original.answers(sample, self._read) if before is None else before
        self._right = self._target()

    @property
    def original(self) -> Model:
        """The model that others are compared with."""
        assert self._original is not None, "it was not given"
        return self._original

    def drop(self, path: Path) -> Drop:
        """How much worse the model in `path` is."""
        after = Model(path).answers(self._sample, self._read)
        return self._drop_of_choices(after) if self._is_choice else self._drop_of_numbers(after)

    def _drop_of_choices(self, after: "Array") -> Drop:
        if self._right is None:
            differs = (after != self._before).astype(float)
            return _points(differs, measure="disagreement with the original")
        lost = (self._before == self._right).astype(float) - (after == self._right).astype(float)
        scores = [float((each == self._right).mean()) for each in (self._before, after)]
        return _points(lost, measure="accuracy", before=scores[0], after=scores[1])

    def _drop_of_numbers(self, after: "Array") -> Drop:
        import numpy as np

        right = self._before if self._right is None else self._right
        spread = float(np.std(right)) or 1.0
        grown = (np.abs(after - right) - np.abs(self._before - right)) / spread
        errors = [float(np.mean(np.abs(each - right))) for each in (self._before, after)]
        return _points(grown, measure="mean absolute error", before=errors[0], after=errors[1])

    def _target(self) -> "Array | None":
        import numpy as np

        target = self._sample.target
        if target is None:
            return None
        if not self._is_choice:
            return np.asarray(target, dtype=float).reshape(len(target))
        labels = self._contract.labels
        if self._before.dtype.kind in "iu" and labels and self._contract.labelling is not None:
            places = {label: index for index, label in enumerate(labels)}
            found = [places.get(_text(value), -1) for value in target]
            if -1 in found:
                unknown = _text(target[found.index(-1)])
                raise InvalidRequest(
                    f"the target holds {quote(unknown)}, which is no label of the model",
                    hint=f"labels: {', '.join(labels[:8])}",
                    details=[{"field": "parameters.target", "expected": list(labels[:8]), "received": unknown}],
                )
            return np.asarray(found)
        return np.asarray([_text(value) for value in target])

    def _read(self, outputs: "Mapping[str, Array]") -> "Array":
        """The one answer a row that is compared."""
        import numpy as np

        if self._contract.labelling is not None:
            return positions(self._contract.labelling, outputs)
        first = next(iter(outputs.values()))
        if self._is_choice:
            wide = first.ndim > 1 and first.shape[1] > 1
            chosen = first.argmax(axis=1) if wide else first.reshape(len(first))
            return np.asarray([_text(value) for value in chosen])
        return np.asarray(first.reshape(len(first), -1).astype(float).mean(axis=1))


def positions(labelling: Labelling, outputs: "Mapping[str, Array]") -> "Array":
    """The position of the label of each row."""
    import numpy as np

    source = outputs[labelling.source]
    if labelling.rule is LabelSource.ARGMAX:
        return np.asarray(source.reshape(len(source), -1).argmax(axis=1))
    return np.asarray(source.reshape(len(source)), dtype=int)


def times(original: Model, other: Model, sample: Sample) -> dict[str, Any]:
    """Time of one thread for a row and for a batch: medians in microseconds, and how many times quicker `other` is."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, rows in (("one", 1), ("batch", min(64, sample.rows))):
        taken: tuple[list[float], list[float]] = ([], [])
        inputs = sample.part(0, rows)
        for turn in range(_ROUNDS + 5):
            for model, times_of in zip((original, other), taken, strict=True):
                began = time.perf_counter()
                model.run(inputs)
                if turn >= 5:  # noqa: PLR2004  (the first few only warm up)
                    times_of.append(time.perf_counter() - began)
        ratios = np.array(taken[0]) / np.array(taken[1])
        low, high = np.quantile(ratios, [0.25, 0.75])
        found[name] = {
            "rows": rows,
            "before_us": round(float(np.median(taken[0])) * 1e6, 1),
            "after_us": round(float(np.median(taken[1])) * 1e6, 1),
            "times_quicker": round(float(np.median(ratios)), 3),
            "quartiles": [round(float(low), 3), round(float(high), 3)],
            "runs": _ROUNDS,
        }
    return found


def _points(lost: "Array", *, measure: str, before: float | None = None, after: float | None = None) -> Drop:
    import numpy as np

    mean = float(np.mean(lost))
    half = _NORMAL_95 * float(np.std(lost)) / float(np.sqrt(len(lost)))
    return Drop(
        points=round(100 * mean, 4),
        low=round(100 * (mean - half), 4),
        high=round(100 * (mean + half), 4),
        rows=len(lost),
        measure=measure,
        before=before,
        after=after,
    )


def _text(value: object) -> str:
    """A label as text, whole numbers without a point."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    return str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)
