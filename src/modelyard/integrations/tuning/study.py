"""A study: which parameters are tried next, what has been tried, and what is best. Kept line by line, so it can go on.

Optuna proposes and prunes; what was tried lies in one file of JSON lines, written whole and synced a line at a time. A
study that is opened again on that file knows every trial that had ended, and tries those again that had not.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import MissingExtra
from modelyard.domain.job_kinds.space import Choices, Dimension, Range, grid
from modelyard.domain.job_kinds.tune import GRID, HYPERBAND, MAXIMISE, MEDIAN, NONE, TPE

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
_LINES: Final = "trials.jsonl"
_STARTUP: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial that has ended. `values` in the order of the metrics; `reason` says why one failed."""

    number: int
    parameters: Mapping[str, Any]
    state: str
    values: Sequence[float] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a study is to find; `directions` are `maximise` or `minimise`, one a metric."""

    space: Mapping[str, Dimension]
    directions: Sequence[str]
    method: str
    trials: int
    pruning: str
    seed: int


@dataclass(slots=True)
class Asked:
    """A trial that runs; `handle` is Optuna's."""

    number: int
    parameters: dict[str, Any]
    handle: Any
    steps: dict[str, float] = field(default_factory=dict)


class Study:
    """See the module. One process at a time."""

    def __init__(self, plan: Plan, place: Path) -> None:
        """Open the study whose file lies in the directory `place`, or begin it there."""
        self.plan = plan
        self.tried: list[Tried] = []
        self._path = place / _LINES
        self._known = _whole_lines(self._path)
        self._optuna = _optuna()
        self._study = self._begin()
        self._distributions = {name: self._distribution(each) for name, each in plan.space.items()}
        for line in self._known:
            self._remember(Tried(**line))
        self._left = self._left_of_grid() if plan.method == GRID else None
        self._next = max((each.number for each in self.tried), default=-1) + 1
        self._given = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to ask for."""
        if self._left is not None:
            return not self._left
        return len(self.tried) + self._given >= self.plan.trials

    def ask(self) -> Asked:
        """The next trial."""
        if self._left is not None:
            self._study.enqueue_trial(_encoded(self.plan.space, self._left.pop(0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that liars and multivariate sampling may change
            handle = self._study.ask(self._distributions)
        asked = Asked(self._next, _decoded(self.plan.space, handle.params), handle)
        self._next += 1
        self._given += 1
        return asked

    def step(self, asked: Asked, step: int, value: float) -> bool:
        """Hear of a value on the way; whether the trial is to end now."""
        asked.steps[str(step)] = value
        if len(self.plan.directions) > 1:
            return False
        asked.handle.report(value, step)
        return self.plan.pruning != NONE and bool(asked.handle.should_prune())

    def tell(self, asked: Asked, state: str, values: Sequence[float], *, seconds: float, reason: str = "") -> Tried:
        """Keep how a trial ended; when this returns it is on the disk."""
        states = self._optuna.trial.TrialState
        kind = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}[state]
        self._study.tell(asked.handle, list(values) if state == COMPLETE else None, state=kind)
        tried = Tried(
            number=asked.number,
            parameters=asked.parameters,
            state=state,
            values=list(values),
            steps=asked.steps,
            seconds=round(seconds, 3),
            reason=reason,
        )
        with self._path.open("ab") as stream:
            stream.write(json.dumps(asdict(tried)).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.tried.append(tried)
        self._given -= 1
        return tried

    def best(self) -> list[Tried]:
        """The best trial; with several metrics all that no other beats in each, best in the first metric first."""
        complete = [each for each in self.tried if each.state == COMPLETE]
        signs = [1 if way == MAXIMISE else -1 for way in self.plan.directions]
        scores = {
            each.number: [sign * value for sign, value in zip(signs, each.values, strict=True)] for each in complete
        }
        ordered = sorted(complete, key=lambda each: (*(-score for score in scores[each.number]), each.number))
        if len(signs) == 1:
            return ordered[:1]
        front: list[Tried] = []
        for each in ordered:
            if not any(_beats(scores[other.number], scores[each.number]) for other in front):
                front.append(each)
        return front

    def importances(self) -> dict[str, float]:
        """How much of the difference between trials each parameter explains, 0 to 1; empty where nobody can say."""
        complete = [each for each in self.tried if each.state == COMPLETE]
        if (
            len(complete) < 2 * _STARTUP
            or len(self.plan.directions) > 1
            or len({each.values[0] for each in complete}) == 1
        ):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = self._optuna.importance.get_param_importances(self._study)
            except (RuntimeError, ValueError):
                return {}
        return {name: round(float(value), 4) for name, value in found.items()}

    def _begin(self) -> Any:  # noqa: ANN401  (Optuna's study)
        samplers, pruners, plan = self._optuna.samplers, self._optuna.pruners, self.plan
        seed = plan.seed + len(self._known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = (
                samplers.TPESampler(seed=seed, n_startup_trials=2 * _STARTUP, multivariate=True, constant_liar=True)
                if plan.method == TPE
                else samplers.RandomSampler(seed=seed)
            )
        pruner = {
            NONE: pruners.NopPruner,
            MEDIAN: partial(pruners.MedianPruner, n_startup_trials=_STARTUP),
            HYPERBAND: pruners.HyperbandPruner,
        }[plan.pruning]()
        return self._optuna.create_study(
            directions=[way.replace("ise", "ize") for way in plan.directions], sampler=sampler, pruner=pruner
        )

    def _distribution(self, each: Dimension) -> Any:  # noqa: ANN401
        kinds = self._optuna.distributions
        if isinstance(each, Choices):
            return kinds.CategoricalDistribution([json.dumps(choice) for choice in each.choices])
        return _range(kinds, each)

    def _remember(self, tried: Tried) -> None:
        self.tried.append(tried)
        states = self._optuna.trial.TrialState
        kind = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}[tried.state]
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=_encoded(self.plan.space, tried.parameters),
                distributions=self._distributions,
                values=list(tried.values) if tried.state == COMPLETE else None,
                intermediate_values={int(step): value for step, value in tried.steps.items()},
                state=kind,
            )
        )

    def _left_of_grid(self) -> list[dict[str, Any]]:
        done = [dict(each.parameters) for each in self.tried]
        return [each for each in grid(self.plan.space) or [] if each not in done]


def _range(kinds: Any, each: Range) -> Any:  # noqa: ANN401
    if each.whole:
        return kinds.IntDistribution(int(each.low), int(each.high), log=each.log, step=int(each.step or 1))
    return kinds.FloatDistribution(float(each.low), float(each.high), log=each.log, step=each.step)


def _encoded(space: Mapping[str, Dimension], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Choices as texts, which Optuna keeps whatever they are."""
    return {
        name: json.dumps(value) if isinstance(space[name], Choices) else value for name, value in parameters.items()
    }


def _decoded(space: Mapping[str, Dimension], parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value) if isinstance(space[name], Choices) else value for name, value in parameters.items()
    }


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """At least as good in each, and better in one."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that were written whole; what a kill left of the last one is cut off."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _optuna() -> Any:  # noqa: ANN401  (the library)
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("tune needs a library", hint="pip install 'modelyard[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
