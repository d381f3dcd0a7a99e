"""The job `tune`: trials of a recipe or a script, the best of them, and the model of the best as a version.

Trials that have ended lie in the job's checkpoint, so that an attempt that was killed goes on where it stood. What a
trial does wrong ends that trial alone; a study none of whose first trials gets through is given up.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import InvalidRequest, JobFailed, NotFound
from modelyard.domain.job_kinds.recipe import changed, digest, wrong_in
from modelyard.domain.job_kinds.space import read_space
from modelyard.domain.job_kinds.tune import TUNE, direction
from modelyard.integrations.tuning.crew import Crew, End, Running, Step, last_words
from modelyard.integrations.tuning.errands import METRICS_FILE, MODEL, Errand
from modelyard.integrations.tuning.plot import draw
from modelyard.integrations.tuning.study import COMPLETE, FAILED, PRUNED, Asked, Plan, Study, Tried
from modelyard.ports.job_runner import JobContext

_LIBRARIES: Final = ("optuna", "scikit-learn", "numpy")
_FOLDS: Final = 3
_HOPELESS: Final = 10
"""So many trials that all failed are enough to give a study up."""
_MOST_LOGS: Final = 20
_MODEL_ENDINGS: Final = (".onnx", ".skops", ".joblib", ".safetensors", ".json", ".ubj", ".txt")
_LOG_LINES: Final = 6


class Tune:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says; which inputs there are was seen before."""
        inputs = ("data",) if "recipe" in parameters else ("script", "data")
        TUNE.check(parameters, {name: {} for name in inputs})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Search, and offer what is best."""
        crew = Crew()  # it gets ready meanwhile
        try:
            search = _Search(job)
            search.run(crew)
        finally:
            crew.close()
        return search.conclude()


class _Search:
    """One attempt at a study."""

    def __init__(self, job: JobContext) -> None:
        wish = job.parameters
        self._job, self._wish = job, wish
        self._metrics = [direction(each)[0] for each in wish["metrics"]]
        self._recipe = _with_folds(wish["recipe"]) if "recipe" in wish else None
        self._script = None if self._recipe is not None else job.input("script")
        plan = Plan(
            space=read_space(wish["space"]),
            directions=[direction(each)[1] for each in wish["metrics"]],
            method=wish["method"],
            trials=int(wish["trials"]),
            pruning=wish["pruning"],
            seed=job.seed,
        )
        self.study = Study(plan, job.checkpoint())
        self._place = job.checkpoint() / "trials"
        shutil.rmtree(self._place / "unfinished", ignore_errors=True)
        self._asked: dict[int, Asked] = {}
        self._wall_s = self._trial_s = 0.0
        self._parallel = int(wish["parallel"])

    def run(self, crew: Crew) -> None:
        """Trials until none is left to ask for.

        Raises:
            JobFailed: the first trials all failed; with the reason and the log of the last.
        """
        began = time.monotonic()
        self._forget_unfinished()
        while not self._job.is_cancelled():
            while len(crew) < self._parallel and not self.study.is_done:
                self._start(crew)
            if not len(crew):
                break
            for event in crew.turn():
                self._take(crew, event)
        self._wall_s = time.monotonic() - began

    def _start(self, crew: Crew) -> None:
        asked = self.study.ask()
        wish = self._wish
        errand = Errand(
            number=asked.number,
            directory=str(self._place / str(asked.number)),
            seed=self._job.seed,
            parameters={**wish.get("fixed", {}), **asked.parameters},
            memory_bytes=int(wish["trial_memory_mb"]) << 20,
            disk_bytes=int(wish["trial_disk_mb"]) << 20,
            script=str(self._script or ""),
            data=str(self._data() or ""),
            recipe=None if self._recipe is None else changed(self._recipe, asked.parameters),
            metrics=self._metrics if self._recipe is not None else (),
        )
        self._asked[asked.number] = asked
        crew.start(errand, limit_s=float(wish["trial_seconds"]))

    def _data(self) -> Path | None:
        try:
            return self._job.input("data")
        except NotFound:
            return None

    def _take(self, crew: Crew, event: Step | End) -> None:
        asked = self._asked.get(event.running.errand.number)
        if asked is None:  # it was pruned in this turn
            return
        if isinstance(event, Step):
            value = event.values.get(self._metrics[0])
            if value is not None and self.study.step(asked, event.step, value):
                self._end(event.running, asked, PRUNED, (), seconds=crew.stop(event.running))
            return
        missing = [name for name in self._metrics if name not in event.values]
        reason = event.reason or (f"it gave no {missing[0]} in {METRICS_FILE}" if missing else "")
        if reason:
            self._end(event.running, asked, FAILED, (), seconds=event.seconds, reason=reason)
        else:
            values = [float(event.values[name]) for name in self._metrics]
            self._end(event.running, asked, COMPLETE, values, seconds=event.seconds)

    def _end(
        self,
        running: Running,
        asked: Asked,
        state: str,
        values: Sequence[float],
        *,
        seconds: float,
        reason: str = "",
    ) -> None:
        del self._asked[asked.number]
        tried = self.study.tell(asked, state, values, seconds=seconds, reason=reason)
        self._trial_s += seconds
        if state == FAILED:
            self._say_failure(running, tried)
        self._tidy(tried)
        ended, best = len(self.study.tried), self.study.best()
        total = self.study.plan.trials
        shown = {self._metrics[place]: value for place, value in enumerate(best[0].values)} if best else {}
        text = f"trial {ended} of {total}" + (f", best {_said(shown)}" if shown else "")
        self._job.report(done=0.9 * min(ended / total, 1.0), text=text, metrics=shown)
        if ended >= max(_HOPELESS, 2 * self._parallel) and all(each.state == FAILED for each in self.study.tried):
            self._give_up(running, tried)

    def _say_failure(self, running: Running, tried: Tried) -> None:
        """Into the job's log, and into a file of its own while there are few."""
        words = last_words(running.errand)
        print(f"trial {tried.number} failed: {tried.reason}\n{words}", flush=True)  # noqa: T201  (the job's log)
        kept = self._job.checkpoint() / "logs"
        kept.mkdir(exist_ok=True)
        if len(list(kept.iterdir())) < _MOST_LOGS:
            (kept / f"trial-{tried.number}.log").write_text(f"{tried.reason}\n{words}", encoding="utf-8")

    def _give_up(self, running: Running, tried: Tried) -> None:
        raise JobFailed(
            f"all of the first {len(self.study.tried)} trials failed, the last: {tried.reason}",
            hint=_ends_with(last_words(running.errand)),
        )

    def _tidy(self, tried: Tried) -> None:
        """Of trials only what may still become the version is kept."""
        kept = {each.number for each in self.study.best()} | self._asked.keys()
        for place in self._place.iterdir():
            if int(place.name) not in kept and (tried.state != FAILED or int(place.name) != tried.number):
                shutil.rmtree(place, ignore_errors=True)

    def _forget_unfinished(self) -> None:
        """What an attempt that was killed left of trials that had not ended."""
        self._place.mkdir(exist_ok=True)
        ended = {each.number for each in self.study.tried}
        for place in self._place.iterdir():
            if int(place.name) not in ended:
                shutil.rmtree(place, ignore_errors=True)

    # Afterwards

    def conclude(self) -> Mapping[str, Any]:
        """The result; the model of the best trial is offered where a name is given.

        Raises:
            JobFailed: no trial got through.
        """
        job, study = self._job, self.study
        best = study.best()
        if not best:
            reasons = [each.reason for each in study.tried if each.reason]
            raise JobFailed(
                f"none of {len(study.tried)} trials got through"
                + (f", the last: {reasons[-1]}" if reasons else ": all were pruned"),
                hint=_ends_with(self._last_log()),
            )
        self._keep()
        made = self._version(best[0])
        job.report(done=1.0, text=f"best of {len(study.tried)} trials", metrics=self._shown(best[0])["values"])
        return {
            "metrics": dict(zip(self._metrics, study.plan.directions, strict=True)),
            "best": self._shown(best[0]),
            "front": [self._shown(each) for each in best] if len(self._metrics) > 1 else None,
            "trials": {state: sum(each.state == state for each in study.tried) for state in (COMPLETE, PRUNED, FAILED)},
            "failures": [
                {"number": each.number, "parameters": dict(each.parameters), "reason": each.reason}
                for each in study.tried
                if each.state == FAILED
            ][:_MOST_LOGS],
            "importances": study.importances(),
            "version": made,
            "seconds": {
                "wall": round(self._wall_s, 3),
                "trials": round(self._trial_s, 3),
                "overhead": round(self._overhead(), 4),
            },
            "method": study.plan.method,
            "script_sha256": _sha256(self._script) if self._script else None,
            "seed": job.seed,
            "libraries": {each: version(each) for each in _LIBRARIES},
        }

    def _last_log(self) -> str:
        logs = self._job.checkpoint() / "logs"
        found = sorted(logs.iterdir()) if logs.is_dir() else []
        return found[-1].read_text(encoding="utf-8", errors="replace") if found else ""

    def _overhead(self) -> float:
        """The part of the wall time in which not as many trials ran as may; of this attempt."""
        return max(0.0, 1 - self._trial_s / (self._wall_s * self._parallel)) if self._wall_s else 0.0

    def _shown(self, tried: Tried) -> dict[str, Any]:
        values = dict(zip(self._metrics, tried.values, strict=True))
        return {"number": tried.number, "parameters": dict(tried.parameters), "values": values}

    def _keep(self) -> None:
        job, place = self._job, self._job.directory
        lines = [
            json.dumps({"number": each.number, **self._shown(each), "state": each.state, "seconds": each.seconds})
            if each.state == COMPLETE
            else json.dumps(
                {
                    "number": each.number,
                    "parameters": dict(each.parameters),
                    "state": each.state,
                    "steps": dict(each.steps),
                    "seconds": each.seconds,
                    "reason": each.reason,
                }
            )
            for each in sorted(self.study.tried, key=lambda each: each.number)
        ]
        (place / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        job.keep("trials.jsonl", place / "trials.jsonl")
        if draw(self.study, self._metrics, place / "study.svg"):
            job.keep("study.svg", place / "study.svg")
        logs = job.checkpoint() / "logs"
        for log in sorted(logs.iterdir()) if logs.is_dir() else ():
            job.keep(log.name, log)

    def _version(self, best: Tried) -> Mapping[str, Any] | None:
        job, name = self._job, self._wish.get("name")
        parent = self._wish.get("parent")
        if self._recipe is not None:
            from modelyard.integrations.training.train import trained

            document = changed(self._recipe, best.parameters)
            if not name:
                return {"recipe": {"sha256": digest(document), "document": document}}
            return trained(job, document, str(name), begin=0.9, parent=parent)
        if not name:
            return None
        place = self._place / str(best.number)
        found = (
            [place / MODEL]
            if (place / MODEL).is_dir()
            else sorted(each for each in place.glob(f"{MODEL}.*") if each.suffix in _MODEL_ENDINGS)
        )
        if not found:
            raise InvalidRequest(
                "the best trial wrote no model to offer",
                hint=f"let the script write {MODEL}.onnx, {MODEL}.skops or a directory {MODEL} beside {METRICS_FILE},"
                " or leave the name out",
                details=[{"field": "parameters.name", "expected": "nothing, or a script that writes a model"}],
            )
        job.candidate(found[0], name=str(name), parent=parent)
        return {"file": found[0].name, "trial": best.number}


def _with_folds(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe, judged on folds: what is held out is for the model that is chosen, once."""
    if recipe.get("validation", {}).get("folds", 0) > 1:
        return dict(recipe)
    made = changed(recipe, {"validation.folds": _FOLDS})
    assert not wrong_in(made), "folds fit every recipe"
    return made


def _ends_with(log: str) -> str:
    said = [line for line in log.splitlines() if any(map(str.isalnum, line))]
    lines = [line.strip() for line in said[-_LOG_LINES:]]
    return "its log ends with: " + " | ".join(lines)[-600:] if lines else "the log of the job has what they said"


def _said(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
