"""The job `optimise`: the cheapest way to serve a model within a latency and an accuracy, and what it promises."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, JobFailed
from modelyard.domain.job_kinds import KINDS
from modelyard.foundation.samples import read_sample
from modelyard.ports.job_runner import JobContext
from modelyard.processes.jobs.optimising.figures import expected, ratio
from modelyard.processes.jobs.optimising.forms import FormMaker, Forms, package_of
from modelyard.processes.jobs.optimising.plot import draw
from modelyard.processes.jobs.optimising.points import Point, frontier
from modelyard.processes.jobs.optimising.pool import Conditions
from modelyard.processes.jobs.optimising.search import ROUNDS, Findings, Search

_FORMS_DONE: Final = 0.25
_LIBRARIES: Final = ("onnxruntime", "openvino", "numpy")


class Optimise:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says."""
        KINDS["optimise"].check(parameters, {"model": {}, "sample": {}})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Make the forms, measure, choose, and offer what was chosen."""
        import numpy as np

        goal = _Goal.of(job.parameters)
        package = package_of(job)
        sample = read_sample(job.input("sample"), package.contract.inputs, target=job.parameters.get("target"))
        conditions = _conditions(job.parameters)
        _require_fitting(conditions.rows, package.contract.max_batch_size)

        def told(begin: float, end: float) -> Any:  # noqa: ANN401  (a function of two arguments)
            def tell(done: float, text: str) -> None:
                if job.is_cancelled():
                    raise JobFailed("it was ended before it was done")
                job.report(done=begin + (end - begin) * done, text=text)

            return tell

        forms = FormMaker(job, package, sample).make(
            tuple(job.parameters["methods"]), tuple(job.parameters["runtimes"]), tell=told(0.0, _FORMS_DONE)
        )
        search = Search(
            sample=sample,
            conditions=conditions,
            p99_ms=goal.p99_ms,
            seconds=float(job.parameters["seconds"]),
            place=job.directory / "servers",
            chance=np.random.default_rng(job.seed),
            tell=told(_FORMS_DONE, 1.0),
        )
        found = asyncio.run(search.run(forms.made))
        chosen = goal.choose(found)
        job.report(done=1.0, text="nothing stays within it" if chosen is None else chosen.title)
        result = _document(job, goal, conditions, forms, found, chosen)
        _keep(job, result)
        if chosen is not None and chosen.form.upload is not None:
            job.candidate(
                chosen.form.upload,
                name=str(job.parameters.get("name") or package.name),
                labels=chosen.form.package.contract.label_file(),
                config=None,
                parent=job.parameters.get("parent"),
            )
        return result


def _keep(job: JobContext, result: Mapping[str, Any]) -> None:
    points = job.directory / "points.json"
    points.write_text(json.dumps(result, indent=1))
    job.keep(points.name, points)
    plot = job.directory / "frontier.svg"
    if draw(result, plot):
        job.keep(plot.name, plot)


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a point has to keep to."""

    p99_ms: float
    max_drop: float

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "_Goal":
        return cls(float(parameters["p99_ms"]), float(parameters["max_drop"]))

    def is_met_by(self, point: Point) -> bool:
        """Whether all of the interval that is predicted lies within the latency."""
        return point.form.points <= self.max_drop and point.expected_p99(to_come=ROUNDS).high <= self.p99_ms

    def choose(self, found: Findings) -> Point | None:
        """The cheapest that meets it; None where nothing does."""
        met = [point for point in found.kept if self.is_met_by(point)]
        return min(met, key=lambda point: expected(point.cost).value, default=None)


def _conditions(parameters: Mapping[str, Any]) -> Conditions:
    cores = os.cpu_count() or 1
    return Conditions(
        servers=int(parameters.get("servers") or cores),
        cores=cores,
        rate=float(parameters["rate"]),
        rows=int(parameters["rows"]),
    )


def _require_fitting(rows: int, most: int) -> None:
    if most and rows > most:
        raise InvalidRequest(
            f"a request of {rows} rows is more than this model takes at once",
            hint=f"ask for at most {most}",
            details=[{"field": "parameters.rows", "expected": f"at most {most}", "received": str(rows)}],
        )


def _document(
    job: JobContext, goal: _Goal, conditions: Conditions, forms: Forms, found: Findings, chosen: Point | None
) -> dict[str, Any]:
    default, best = found.default, frontier(found.kept)
    quickest = min(found.kept, key=lambda point: expected(point.p99_ms).value)
    shown = {
        id(point): {
            **point.document(to_come=ROUNDS),
            "is_default": point is default,
            "is_chosen": point is chosen,
            "is_on_frontier": any(point is each for each in best),
            "meets": goal.is_met_by(point),
        }
        for point in sorted(found.kept, key=lambda point: expected(point.cost).value)
    }
    return {
        "goal": {"p99_ms": goal.p99_ms, "max_drop": goal.max_drop},
        "load": {
            "rate": conditions.rate,
            "rows": conditions.rows,
            "servers": conditions.servers,
            "cores": conditions.cores,
            "round_s": round(found.round_s, 3),
            "rounds": ROUNDS,
        },
        "default": shown[id(default)],
        "chosen": None if chosen is None else shown[id(chosen)],
        "quickest": shown[id(quickest)],
        "times_cheaper": None if chosen is None else ratio(default.cost, chosen.cost).document(),
        "points": list(shown.values()),
        "put_aside": [point.look() for point in found.aside],
        "left_out": forms.left_out,
        "seed": job.seed,
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return quote("not installed")
