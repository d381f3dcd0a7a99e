"""The revisions of one service that are compared now: when counting begins anew, and what it gave so far."""

import itertools
import os
from collections.abc import Sequence
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded, RunFailed
from modelyard.domain.errors.platform import Unavailable
from modelyard.domain.sketches import Sketch
from modelyard.inference.batching import Call
from modelyard.inference.routing.backends import ServedBackend
from modelyard.inference.routing.sketching import Pairs, Place
from modelyard.inference.routing.workers import WorkerDied, WorkerFailed

_process: Final = os.urandom(6).hex()
_epochs: Final = itertools.count(1)


class Comparison:
    """Sketches of the backends between which a coin decides. A new setting of the shares is a new epoch."""

    def __init__(self) -> None:
        self._split = ""
        self._backends: list[ServedBackend] = []
        self._past: tuple[Sketch, ...] = ()

    def begin(self, choices: Sequence[tuple[ServedBackend, int]]) -> None:
        """Compare these, counting anew when they or their shares are others than before."""
        ordered = sorted(choices, key=lambda each: each[0].key.revision)
        split = ",".join(f"{backend.key.revision}={weight}" for backend, weight in ordered)
        backends = [backend for backend, _ in ordered]
        if split == self._split and backends == self._backends:
            return
        self.end()
        if len(backends) < 2:  # noqa: PLR2004  (nothing to compare)
            return
        epoch = f"{_process}-{next(_epochs)}"
        pairs = Pairs(len(backends))
        for side, backend in enumerate(backends):
            backend.watch(Place(epoch=epoch, split=split, side=side, pairs=pairs))
        self._split, self._backends = split, backends

    def end(self) -> None:
        """Count nothing any more; what was counted last is told once more."""
        if self._backends:
            self._past = self._present()
        for backend in self._backends:
            backend.unwatch()
        self._split, self._backends = "", []

    def failed(self, error: ModelyardError, call: Call) -> None:
        """A request ended without a prediction; counted where it was the revision that spoilt it."""
        backend = getattr(call, "backend", None)
        if not isinstance(backend, ServedBackend) or backend.sketch is None:
            return
        spoilt = isinstance(error, (DeadlineExceeded, RunFailed, Unavailable))
        if spoilt or isinstance(error.__cause__, (WorkerDied, WorkerFailed)):
            backend.sketch.failed(call)

    def sketches(self) -> tuple[Sketch, ...]:
        """What was counted in this epoch, and in the one before."""
        return (*self._past, *self._present())

    def _present(self) -> tuple[Sketch, ...]:
        return tuple(
            backend.sketch.snapshot(backend.key.project, backend.key.service, backend.key.revision)
            for backend in self._backends
            if backend.sketch is not None
        )
