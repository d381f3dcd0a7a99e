"""The job `distil`: a small student of a version that answers as it does on held-out rows, and how much quicker.

Students are tried from the smallest on, each on what the teacher answers to rows of the sample and to mixed ones. What
is good enough and quickest goes through the same intake as every upload.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.contract import ModelContract, ServingPackage
from modelyard.domain.errors.platform import NotFound, NotSupported
from modelyard.domain.job_kinds.distil import AUTO, DISTIL, STUDENTS
from modelyard.foundation.documents import read_package
from modelyard.foundation.samples import Sample, read_sample
from modelyard.integrations.distilling.answers import read_answers
from modelyard.integrations.distilling.graphs import write
from modelyard.integrations.distilling.heads import Head, HeadKind, head_of, settled
from modelyard.integrations.distilling.lessons import as_sample, matrix, mixed, picked, split
from modelyard.integrations.distilling.students import FITS
from modelyard.integrations.judging import Drop, Judge, Model, positions, times
from modelyard.ports.job_runner import JobContext

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LIBRARIES: Final = ("scikit-learn", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True, slots=True)
class _Tried:
    """A student that was judged."""

    text: str
    path: Path
    drop: Drop
    speed: Mapping[str, Any]


class Distil:
    """See `JobRunner`."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says."""
        DISTIL.check(parameters, {"model": {}, "sample": {}})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Teach, judge, and offer the version."""
        wish = job.parameters
        package = read_package(job.input("model") / "package")
        contract, specs = package.contract, package.contract.inputs
        head = head_of(contract)
        job.report(done=0.02, text="reading the sample")
        sample = read_sample(job.input("sample"), specs, target=wish.get("target"))
        rows = matrix(sample, specs)
        known, places = split(rows, float(wish["held_out"]), job.seed)
        held = picked(sample, places)
        taught = _logged(job, head, contract, rows, known, places) or _asked(
            job, package, head, sample, rows[known], held
        )
        head, lessons = taught.head, taught.lessons
        judge = Judge(
            head.contract(contract), taught.original, Sample(held.inputs, None, held.rows), before=taught.before
        )
        school = _School(job, head, contract, lessons, taught.answers)
        best, tried = school.best(judge, held, taught.teacher)
        scores = None
        if held.target is not None:
            scores = (
                Judge(head.contract(contract), taught.original, held, before=taught.before).drop(best.path).document()
            )
        sizes = taught.size_bytes, best.path.stat().st_size
        name = str(wish.get("name") or package.name)
        job.candidate(
            best.path,
            name=name,
            labels=contract.label_file(),
            config={"task": contract.task.value},
            parent=wish.get("parent"),
        )
        return {
            "student": best.text,
            "teacher": "asked" if taught.original is not None else "its logged answers",
            "max_disagreement": float(wish["max_disagreement"]),
            "disagreement": best.drop.document(),
            "accuracy": scores,
            "rows": {"given": len(known), "mixed": len(lessons) - len(known), "held_out": held.rows},
            "size": {"before_bytes": sizes[0], "after_bytes": sizes[1], "ratio": round(sizes[1] / sizes[0], 4)},
            "time": best.speed if taught.original is not None else _alone(best.speed),
            "tried": [{"student": each.text, "disagreement": each.drop.points} for each in tried],
            "seed": job.seed,
            "libraries": {each: version(each) for each in _LIBRARIES},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Teaching:
    """What the teacher answers to the lessons, and `before` to the held-out rows, one value a row.

    `original` is the teacher's file where it can be asked, and `teacher` what was loaded from it.
    """

    head: Head
    lessons: "Array"
    answers: "Array"
    before: "Array | None"
    original: Path | None
    teacher: Model | None
    size_bytes: int


def _asked(
    job: JobContext, package: ServingPackage, head: Head, sample: Sample, rows: "Array", held: Sample
) -> _Teaching:
    """The version itself answers."""
    if package.runtime != "onnxruntime":
        raise NotSupported(
            f"a teacher that is asked has to be served as ONNX, and this one is {package.format}",
            hint="deploy it, ask it with `modelyard batch`, and give what it answered as answers",
        )
    original, contract = job.input("model") / "package" / package.entry, package.contract
    lessons = _with_mixed(rows, int(job.parameters["generate"]), job.seed)
    job.report(done=0.05, text=f"the teacher answers {len(lessons)} rows")
    teacher = Model(original)
    answers = _answers(teacher, as_sample(lessons, contract.inputs, sample), contract, head)
    return _Teaching(
        head=settled(head, answers),
        lessons=lessons,
        answers=answers,
        before=_chosen(teacher, held, contract) if contract.labelling is not None else None,
        original=original,
        teacher=teacher,
        size_bytes=original.stat().st_size,
    )


def _logged(
    job: JobContext, head: Head, contract: ModelContract, rows: "Array", known: "Array", places: "Array"
) -> _Teaching | None:
    """What it has answered before, where that is given."""
    try:
        path = job.input("answers")
    except NotFound:
        return None
    answers = read_answers(path, head, contract, len(rows))
    head = settled(head, answers)
    before = answers[places].argmax(axis=1) if contract.labelling is not None else answers[places].mean(axis=1)
    files = [each for each in (job.input("model") / "package").iterdir() if each.is_file()]
    size = sum(each.stat().st_size for each in files)
    return _Teaching(
        head=head,
        lessons=rows[known],
        answers=answers[known],
        before=before,
        original=None,
        teacher=None,
        size_bytes=size,
    )


class _School:
    """Teaches students one after the other."""

    def __init__(
        self, job: JobContext, head: Head, contract: ModelContract, lessons: "Array", answers: "Array"
    ) -> None:
        self._job, self._head, self._contract = job, head, contract
        self._lessons, self._answers = lessons, answers

    def best(self, judge: Judge, held: Sample, teacher: Model | None) -> tuple[_Tried, list[_Tried]]:
        """The quickest that is good enough, and all that were tried.

        Raises:
            NotSupported: none is; with the disagreement of the nearest.
        """
        wish, most = self._job.parameters["student"], float(self._job.parameters["max_disagreement"])
        forms = STUDENTS if wish == AUTO else (wish,)
        tried: list[_Tried] = []
        for place, form in enumerate(forms):
            for text, fit in FITS[form]:
                self._job.report(done=0.1 + 0.85 * place / len(forms), text=f"teaching: {text}")
                path = self._job.directory / f"{text.replace(' ', '-').replace(',', '')}.onnx"
                self._teach(fit, path)
                student = Model(path)
                tried.append(_Tried(text, path, judge.drop(path), times(teacher or student, student, held)))
                if tried[-1].drop.points <= most:
                    break
        enough = [each for each in tried if each.drop.points <= most]
        if enough:
            return min(enough, key=lambda each: each.speed["one"]["after_us"]), tried
        near = min(tried, key=lambda each: each.drop.points)
        raise NotSupported(
            f"no student is near enough: the nearest, {near.text}, differs by {near.drop.points:g} points of"
            f" {near.drop.measure} on {near.drop.rows} held-out rows, and {most:g} are allowed",
            hint="allow more with max_disagreement, give or generate more rows, or take another student",
        )

    def _teach(self, fit: Any, path: Path) -> None:  # noqa: ANN401  (one of `FITS`)
        from modelyard.integrations.distilling.targets import Targets

        targets = Targets(self._head, self._answers, float(self._job.parameters["temperature"]))
        body = targets.restored(fit(self._lessons, targets.values, self._job.seed))
        write(path, body, head=self._head, inputs=self._contract.inputs, temperature=targets.temperature)


def _alone(speed: Mapping[str, Any]) -> dict[str, Any]:
    """The student's times without a teacher beside it."""
    return {which: {"rows": each["rows"], "after_us": each["after_us"]} for which, each in speed.items()}


def _with_mixed(rows: "Array", count: int, seed: int) -> "Array":
    import numpy as np

    return np.concatenate([rows, mixed(rows, count, seed)]) if count else rows


def _answers(teacher: Model, sample: Sample, contract: ModelContract, head: Head) -> "Array":
    """What a student is to learn: [rows, head.width]."""
    import numpy as np

    if head.kind is HeadKind.LABEL:
        return np.eye(head.width)[_chosen(teacher, sample, contract)]
    return teacher.answers(sample, lambda outputs: outputs[head.output.name].reshape(-1, head.width)).astype(float)


def _chosen(teacher: Model, sample: Sample, contract: ModelContract) -> "Array":
    """The position of the label of each row."""
    labelling = contract.labelling
    if labelling is None:
        raise NotSupported("the model has no labels")
    return teacher.answers(sample, lambda outputs: positions(labelling, outputs))
