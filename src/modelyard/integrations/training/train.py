"""The job `train`: rows and a recipe become a judged model, which goes through the same intake as every upload."""

import hashlib
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import NotFound
from modelyard.domain.job_kinds.estimators import CLASSIFICATION
from modelyard.domain.job_kinds.recipe import LOWER_IS_BETTER, Recipe, digest, read_recipe
from modelyard.domain.job_kinds.train import TRAIN
from modelyard.integrations.training import continuing
from modelyard.integrations.training.figures import Answers, figures_of, usual_metric
from modelyard.integrations.training.plot import draw
from modelyard.integrations.training.splitting import split
from modelyard.integrations.training.tables import Table, read_table, task_of
from modelyard.integrations.training.trials import baseline, run_trial
from modelyard.ports.job_runner import JobContext

_LIBRARIES: Final = ("scikit-learn", "numpy", "pandas", "skops")
_REPORT: Final = "report.svg"


class Train:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says."""
        TRAIN.check(parameters, {name: {} for name in ("data", "model", "earlier")})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Train anew, or go on with the given model."""
        return _anew(job) if "recipe" in job.parameters else _further(job)


def _anew(job: JobContext) -> Mapping[str, Any]:
    return trained(job, job.parameters["recipe"], str(job.parameters["name"]), begin=0.02)


def trained(
    job: JobContext, document: Mapping[str, Any], name: str, *, begin: float, parent: str | None = None
) -> dict[str, Any]:
    """Train by a recipe and offer the version; `begin` is how much of the job is done before."""
    recipe, data = read_recipe(document), job.input("data")
    job.report(done=begin, text="reading the rows")
    table = read_table(data, recipe.target, task=recipe.task)
    began = time.monotonic()
    trial = run_trial(
        recipe,
        table,
        job.seed,
        report=lambda done, text: job.report(done=begin + (0.9 - begin) * done, text=text),
    )
    took = time.monotonic() - began
    held = figures_of(trial.model, trial.held, trial.task, metric=trial.metric, seed=job.seed)
    result = {
        **_stated(job, document, held, trial.task),
        "baseline": baseline(trial, job.seed),
        "folds": trial.folds,
        "threshold": trial.threshold,
        "rows": {"learned": trial.rows, "given": len(table) - len(trial.held), "held_out": len(trial.held)},
        "seconds": round(took, 3),
        "warnings": list(trial.warnings),
    }
    _draw(job, trial.model, trial.held, trial.task)
    _offer(job, trial.model, name, document, data, result, parent=parent)
    return result


def _further(job: JobContext) -> Mapping[str, Any]:
    wish, version_ = job.parameters, job.input("model")
    document = continuing.recipe_of(version_)
    recipe, model = read_recipe(document), continuing.model_of(version_)
    later = read_table(job.input("data"), recipe.target, task=recipe.task)
    earlier = _earlier(job, recipe)
    for name, table in (("data", later), ("earlier", earlier)):
        if table is not None:
            continuing.require_same_form(model, table, name)
    later = continuing.like(model, later)
    earlier = continuing.like(model, earlier) if earlier is not None else None
    task = task_of(later, recipe.task if recipe.task != "auto" else _task_of_model(model))
    changed = continuing.drift(earlier, later, task=task) if earlier is not None else {}
    least = wish.get("only_if_drift")
    if least is not None and max(changed.values()) < float(least):
        job.report(done=1.0, text="the rows have not drifted: nothing is trained")
        return {"trained": False, "drift": continuing.most(changed), "only_if_drift": float(least)}
    return _taught(job, model, document, later, earlier, task=task, changed=changed)


def _taught(  # noqa: PLR0913  (what going on is made of)
    job: JobContext,
    model: Any,  # noqa: ANN401
    document: Mapping[str, Any],
    later: Table,
    earlier: Table | None,
    *,
    task: str,
    changed: Mapping[str, float],
) -> Mapping[str, Any]:
    wish, recipe = job.parameters, read_recipe(document)
    is_choice = task == CLASSIFICATION
    metric = recipe.metric or usual_metric(task)
    known, held = split(later, float(recipe.validation["held_out"]), job.seed, is_choice=is_choice)
    kept, old = (
        split(earlier, float(recipe.validation["held_out"]), job.seed, is_choice=is_choice)
        if earlier is not None
        else (None, None)
    )
    judged = {"new": held, **({"earlier": old} if old is not None else {})}
    job.report(done=0.2, text="judging the model as it is")
    before = {name: figures_of(model, each, task, metric=metric, seed=job.seed) for name, each in judged.items()}
    rows, again = continuing.with_replay(known, kept, float(wish["replay"]), job.seed)
    job.report(done=0.4, text=f"learning from {len(known)} new rows and {again} earlier ones")
    done = continuing.go_on(model, recipe.estimator, rows, rounds=int(wish["rounds"]), seed=job.seed)
    after = {name: figures_of(model, each, task, metric=metric, seed=job.seed) for name, each in judged.items()}
    result = {
        **_stated(job, document, after["new"], task),
        "trained": True,
        "done": done,
        "before": {name: each["value"] for name, each in before.items()},
        "after": {name: each["value"] for name, each in after.items()},
        "better_is": "lower" if metric in LOWER_IS_BETTER else "higher",
        "rows": {"new": len(known), "replayed": again, "held_out": {name: len(each) for name, each in judged.items()}},
        "drift": continuing.most(changed),
    }
    _draw(job, model, held, task)
    _offer(
        job,
        model,
        str(job.parameters.get("name") or job.parameters["parent"].partition(":")[0]),
        document,
        job.input("data"),
        result,
        parent=job.parameters["parent"],
    )
    return result


def _earlier(job: JobContext, recipe: Recipe) -> Table | None:
    try:
        path = job.input("earlier")
    except NotFound:
        return None
    return read_table(path, recipe.target, task=recipe.task, name="earlier")


def _task_of_model(model: Any) -> str:  # noqa: ANN401
    return CLASSIFICATION if hasattr(model, "classes_") else "regression"


def _stated(job: JobContext, document: Mapping[str, Any], held: Mapping[str, Any], task: str) -> dict[str, Any]:
    return {
        "task": task,
        "estimator": document["estimator"],
        "held_out": dict(held),
        "recipe": {"sha256": digest(document), "document": dict(document)},
        "seed": job.seed,
        "libraries": {each: version(each) for each in _LIBRARIES},
    }


def _draw(job: JobContext, model: Any, held: Table, task: str) -> None:  # noqa: ANN401
    path = job.directory / _REPORT
    if draw(Answers(model, held, task), path):
        job.keep(_REPORT, path)


def _offer(  # noqa: PLR0913  (what a version is made of)
    job: JobContext,
    model: Any,  # noqa: ANN401
    name: str,
    document: Mapping[str, Any],
    data: Path,
    result: Mapping[str, Any],
    *,
    parent: str | None,
) -> None:
    from skops import io

    job.report(done=0.95, text="writing the model")
    path = job.directory / continuing.MODEL_FILE
    io.dump(model, path)
    with data.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    config = {
        "task": result["task"],
        "metrics": result["held_out"]["figures"],
        "training_data": {"sha256": sha256, "rows": result["rows"], "recipe": dict(document)},
    }
    job.candidate(path, name=name, config=config, parent=parent)
    job.report(done=1.0, text="offered")
