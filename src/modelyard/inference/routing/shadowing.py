"""Copies of answered requests for a shadow, and how its answers compare. Nobody waits for a shadow.

A run is copied after its answers were sent, and only while few copies are under way: what is beyond is dropped and
counted. A shadow in this process never runs on the event loop, so it holds up nothing but its own thread.
"""

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.sketches import Differing, ShadowSketch, latency_bucket
from modelyard.inference.batching import Batcher, Call, Done, LocalRunner, Runner, Terms
from modelyard.inference.routing.backends import ServedBackend

Array = np.ndarray[Any, Any]
MOST_REQUESTS: Final = 512
MOST_BYTES: Final = 64 << 20
PATIENCE_S: Final = 30.0
RTOL: Final = 1e-4
ATOL: Final = 1e-5
_EXAMPLES: Final = 8
_LONGEST: Final = 200
_process: Final = os.urandom(6).hex()
_epochs: Final = itertools.count(1)


class ShadowCall(Call):
    """The requests of one run, once more."""

    __slots__ = ("answers", "mirror", "requests", "size", "took")

    def __init__(
        self, mirror: "Mirror", inputs: dict[str, Array], answers: dict[str, Array], requests: list[int]
    ) -> None:
        now = perf_counter()
        super().__init__(inputs, sum(requests), started=now, deadline=now + PATIENCE_S)
        self.mirror = mirror
        self.answers = answers
        self.requests = requests
        self.size = sum(array.nbytes for array in (*inputs.values(), *answers.values()))
        self.took = 0.0

    def succeed(self, outputs: Mapping[str, Array]) -> None:
        """Compare."""
        self.ok = True
        self.mirror.came_back(self, outputs)

    def fail(self, error: ModelyardError) -> None:
        """Count it."""
        self.mirror.failed(self, error)

    def drop(self) -> None:
        """Cannot be: no client is there to go."""


@dataclass(slots=True)
class _Tally:
    copied: int = 0
    compared: int = 0
    failed: int = 0
    dropped: int = 0
    differing: int = 0
    rows: int = 0
    other_labels: int = 0
    largest_difference: float = 0.0
    largest_relative: float = 0.0
    answered_latency: dict[int, int] = field(default_factory=dict)
    shadow_latency: dict[int, int] = field(default_factory=dict)
    examples: list[Differing] = field(default_factory=list)
    last_failure: str = ""


class Mirror:
    """Copies runs of other backends to one shadow, and compares. Belongs to one event loop."""

    def __init__(self, shadow: ServedBackend, *, draw: Callable[[], float] = random.random) -> None:
        assert shadow.runner is not None
        assert shadow.signature is not None
        self.shadow = shadow
        self.percent = shadow.backend.shadow_percent
        self._batched = shadow.signature.batched
        self._draw = draw
        self._epoch = f"{_process}-{next(_epochs)}"
        self._tally = _Tally()
        self._requests = self._bytes = 0
        if isinstance(shadow.batcher, Batcher):
            shadow.batcher.instrument(_AsideRunner(shadow.runner), _ShadowMeasures())

    def answered(self, calls: Sequence[Call], outputs: Mapping[str, Array] | None, now: float, *, took: float) -> None:
        """Copy what a backend answered."""
        if outputs is None or self.shadow.batcher is None or isinstance(calls[0], ShadowCall):
            return
        chosen = [index for index, call in enumerate(calls) if call.ok and 100 * self._draw() < self.percent]
        if not chosen:
            return
        if self._requests + len(chosen) > MOST_REQUESTS or self._bytes > MOST_BYTES:
            self._tally.dropped += len(chosen)
            return
        copy = self._copy(calls, chosen, outputs)
        copy.took = took
        self._requests += len(chosen)
        self._bytes += copy.size
        self._tally.copied += len(chosen)
        self.shadow.batcher.submit(copy)

    def came_back(self, call: ShadowCall, outputs: Mapping[str, Array]) -> None:
        """The shadow's answer to a copy."""
        self._settle(call)
        self._tally.compared += len(call.requests)
        self._tally.rows += call.rows
        try:
            self._compare(call, outputs)
        except (TypeError, ValueError, KeyError) as error:  # answers of another shape: nothing of them is alike
            self._tally.differing += len(call.requests)
            self._tally.last_failure = f"the answers cannot be compared: {error}"[:_LONGEST]

    def failed(self, call: ShadowCall, error: ModelyardError) -> None:
        """A copy got no answer."""
        self._settle(call)
        self._tally.failed += len(call.requests)
        self._tally.last_failure = str(error)[:_LONGEST]

    def timed(self, call: ShadowCall, took: float) -> None:
        """What a run took, there and here."""
        _count(self._tally.answered_latency, call.took)
        _count(self._tally.shadow_latency, took)

    def snapshot(self) -> ShadowSketch:
        """What was seen so far."""
        key, tally = self.shadow.key, self._tally
        return ShadowSketch(
            project=key.project,
            service=key.service,
            revision=key.revision,
            version=key.version,
            digest=key.digest,
            epoch=self._epoch,
            copied=tally.copied,
            compared=tally.compared,
            failed=tally.failed,
            dropped=tally.dropped,
            differing=tally.differing,
            rows=tally.rows,
            other_labels=tally.other_labels,
            largest_difference=tally.largest_difference,
            largest_relative=tally.largest_relative,
            answered_latency=tuple(sorted(tally.answered_latency.items())),
            shadow_latency=tuple(sorted(tally.shadow_latency.items())),
            examples=tuple(tally.examples),
            last_failure=tally.last_failure,
        )

    def _copy(self, calls: Sequence[Call], chosen: Sequence[int], outputs: Mapping[str, Array]) -> ShadowCall:
        if not self._batched or len(calls) == 1:
            rows = [calls[0].rows]
            copy = ShadowCall(self, calls[0].inputs, dict(outputs), rows)
        else:
            rows = [calls[index].rows for index in chosen]
            names = calls[chosen[0]].inputs
            inputs = {name: np.concatenate([calls[index].inputs[name] for index in chosen]) for name in names}
            copy = ShadowCall(self, inputs, _rows_of(outputs, calls, chosen), rows)
        copy.shape_key = calls[chosen[0]].shape_key
        return copy

    def _settle(self, call: ShadowCall) -> None:
        self._requests -= len(call.requests)
        self._bytes -= call.size

    def _compare(self, call: ShadowCall, outputs: Mapping[str, Array]) -> None:
        tally, differs = self._tally, np.zeros(call.rows, dtype=bool)
        for name, answered in call.answers.items():
            if name not in outputs:
                raise KeyError(f"no output {name}")
            theirs = outputs[name]
            if answered.shape != theirs.shape:
                raise ValueError(f"output {name} is {theirs.shape}, not {answered.shape}")
            if answered.dtype.kind in "fc":
                other = self._compare_numbers(answered, theirs)
            else:
                other = np.asarray(answered != theirs)
            rows = other.reshape(call.rows, -1).any(axis=1) if self._batched else np.array([other.any()] * call.rows)
            if answered.dtype.kind not in "fc":
                tally.other_labels += int(rows.sum())
            self._show(name, call, theirs, np.flatnonzero(rows & ~differs))
            differs |= rows
        ends = np.cumsum(call.requests)
        tally.differing += len(set(np.searchsorted(ends, np.flatnonzero(differs), side="right").tolist()))

    def _compare_numbers(self, answered: Array, theirs: Array) -> Array:
        tally = self._tally
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            apart = np.abs(answered.astype("f8") - theirs.astype("f8"))
            relative = apart / np.maximum(np.abs(answered.astype("f8")), ATOL)
        finite = np.isfinite(apart)
        if finite.any():
            tally.largest_difference = max(tally.largest_difference, float(apart[finite].max()))
            tally.largest_relative = max(tally.largest_relative, float(relative[finite].max()))
        return ~np.isclose(theirs, answered, rtol=RTOL, atol=ATOL, equal_nan=True)

    def _show(self, name: str, call: ShadowCall, theirs: Array, rows: Array) -> None:
        for row in rows.tolist():
            if len(self._tally.examples) >= _EXAMPLES:
                return
            at = row if self._batched else slice(None)
            inputs = hashlib.blake2b(digest_size=8)
            for key, array in call.inputs.items():
                inputs.update(key.encode() + repr(array[at].tolist()).encode())
            answered, shadow = _text(call.answers[name][at]), _text(theirs[at])
            self._tally.examples.append(
                Differing(output=name, answered=answered, shadow=shadow, inputs=inputs.hexdigest())
            )


class _ShadowMeasures:
    """What a shadow's runs took. They are no requests of the service, so they stand in none of its figures."""

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        for call in calls:
            if isinstance(call, ShadowCall):
                call.mirror.timed(call, took)

    def answered(self, calls: list[Call], now: float) -> None:
        pass

    def failed(self, error: Exception, calls: int) -> None:
        pass


class _AsideRunner:
    """Runs a shadow beside the event loop, whatever it costs: a model of this process in its lane."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self.takes_terms = inner.takes_terms

    @property
    def capacity(self) -> int:
        return self._inner.capacity

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        if isinstance(self._inner, LocalRunner):
            self._inner.start_aside(batch, rows, done)
        else:
            self._inner.start(batch, rows, done, terms)

    def close(self) -> None:
        self._inner.close()


def _count(histogram: dict[int, int], seconds: float) -> None:
    bucket = latency_bucket(seconds)
    histogram[bucket] = histogram.get(bucket, 0) + 1


def _rows_of(outputs: Mapping[str, Array], calls: Sequence[Call], chosen: Sequence[int]) -> dict[str, Array]:
    """The rows of the chosen calls."""
    if len(chosen) == len(calls):
        return dict(outputs)
    ends = np.cumsum([call.rows for call in calls])
    parts = [slice(int(ends[index]) - calls[index].rows, int(ends[index])) for index in chosen]
    return {name: np.concatenate([array[part] for part in parts]) for name, array in outputs.items()}


def _text(value: Any) -> str:  # noqa: ANN401  (an array or an element)
    plain = np.asarray(value).reshape(-1)[:4].tolist()
    words = [
        each.decode("utf-8", "replace")
        if isinstance(each, bytes)
        else f"{each:.6g}"
        if isinstance(each, float)
        else str(each)
        for each in plain
    ]
    return ", ".join(words)[:_LONGEST]
