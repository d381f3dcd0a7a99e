"""Real teachers and their students: how near, under which contract, and what happens where none is near enough."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.svm import LinearSVC

from modelyard.domain.errors.platform import InvalidRequest, NotSupported
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.foundation.documents import read_package, to_json
from modelyard.integrations.distilling.distil import Distil
from modelyard.integrations.distilling.lessons import mixed, split
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import audited, given_model

TEACHERS: dict[str, tuple[Any, Any]] = {
    "cancer": (load_breast_cancer, RandomForestClassifier(60, random_state=0)),
    "diabetes": (load_diabetes, RandomForestRegressor(60, min_samples_leaf=5, random_state=0)),
    "digits": (load_digits, RandomForestClassifier(60, random_state=0)),
    "labels only": (load_breast_cancer, LinearSVC(random_state=0, max_iter=100_000)),
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, SimpleNamespace] = {}

    def make(name: str) -> SimpleNamespace:
        if name not in made:
            load, model = TEACHERS[name]
            rows, target = load(return_X_y=True)
            if name == "labels only":
                rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
            given = given_model(tmp_path_factory.mktemp("teacher"), model.fit(rows[::2], target[::2]))
            package = given / "package"
            made[name] = SimpleNamespace(given=given, package=package, rows=rows[1::2], right=target[1::2])
        return made[name]

    return make


@pytest.fixture
def attempt(tmp_path: Path) -> Any:
    def make(
        of: SimpleNamespace, *, known: bool = True, more: dict[str, Path] | None = None, **parameters: Any
    ) -> RecordedAttempt:
        file = tmp_path / "sample.npz"
        np.savez(file, rows=of.rows.astype("f4"), **({"target": of.right} if known else {}))
        filled = check_job(find_kind("distil"), parameters, {"model": {}, "sample": {}})
        return RecordedAttempt(
            tmp_path / "attempt", filled, {"model": of.given, "sample": file, **(more or {})}, kind="distil"
        )

    return make


def public(package: Path) -> Any:
    contract = read_package(package).contract
    return to_json([contract.inputs, contract.outputs, contract.labels, contract.task])


@pytest.mark.parametrize(
    ("name", "student", "most"),
    [
        ("cancer", "linear", 15.0),
        ("cancer", "tree", 15.0),
        ("cancer", "forest", 15.0),
        ("cancer", "boosted", 15.0),
        ("digits", "network", 12.0),
        ("diabetes", "forest", 60.0),
        ("labels only", "linear", 15.0),
    ],
)
def test_a_student_stands_in_for_its_teacher(teacher, attempt, tmp_path, name, student, most) -> None:
    of = teacher(name)
    job = attempt(of, student=student, max_disagreement=most, generate=2000)
    result = dict(Distil().run(job))
    assert result["disagreement"]["points"] <= most
    assert result["disagreement"]["rows"] == result["rows"]["held_out"]
    assert result["rows"]["given"] + result["rows"]["held_out"] == len(of.rows)
    assert result["accuracy"]["before"] is not None
    [offered] = job.offered
    named = read_package(of.package).contract.labels
    files = {"model.onnx": offered.data, "config.json": to_json_bytes(offered.config)}
    if named:
        files["labels.txt"] = "\n".join(named).encode()
    again = audited(tmp_path / "again", files, name="student")
    assert public(again) == public(of.package)


def to_json_bytes(document: Any) -> bytes:
    import json

    return json.dumps(document).encode()


def test_auto_takes_the_quickest_that_is_near_enough(teacher, attempt) -> None:
    result = dict(Distil().run(attempt(teacher("cancer"), max_disagreement=12.0, generate=1000, known=False)))
    assert len(result["tried"]) >= 5
    assert result["student"] in [each["student"] for each in result["tried"] if each["disagreement"] <= 12.0]
    assert result["accuracy"] is None


def test_where_no_student_is_near_enough_the_job_says_by_how_much(teacher, attempt) -> None:
    job = attempt(teacher("digits"), student="linear", max_disagreement=0.1, generate=0)
    with pytest.raises(NotSupported, match=r"linear, differs by [\d.]+ points .* held-out rows, and 0.1 are allowed"):
        Distil().run(job)
    assert job.offered == []


def test_equal_rows_stay_on_one_side_and_mixed_ones_in_range() -> None:
    rows = np.repeat(np.arange(120.0).reshape(-1, 2), 3, axis=0).astype("f4")
    known, held = split(rows, 0.4, seed=1)
    assert not {tuple(row) for row in rows[known]} & {tuple(row) for row in rows[held]}
    made = mixed(rows, 500, seed=1)
    assert (made >= rows.min(axis=0)).all()
    assert (made <= rows.max(axis=0)).all()
    assert (made == np.round(made)).all()
    with pytest.raises(InvalidRequest, match="too few"):
        split(rows[:30], 0.3, seed=1)


def logged(of: SimpleNamespace, place: Path, *, suffix: str = ".csv", only_labels: bool = False) -> Path:
    """What the teacher answers to its rows, as the job `batch-inference` writes it."""
    package = read_package(of.package)
    session = onnxruntime.InferenceSession(str(of.package / package.entry))
    shares = session.run(["probabilities"], {session.get_inputs()[0].name: of.rows.astype("f4")})[0]
    labels = package.contract.labels
    frame = pd.DataFrame({"label": [labels[place] for place in shares.argmax(axis=1)]})
    if not only_labels:
        frame = frame.join(pd.DataFrame(shares, columns=[f"probabilities_{label}" for label in labels]))
    path = place / f"predictions{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize(("suffix", "only_labels"), [(".csv", False), (".jsonl", False), (".csv", True)])
def test_logged_answers_teach_without_a_teacher_that_is_asked(teacher, attempt, tmp_path, suffix, only_labels) -> None:
    of = teacher("cancer")
    answers = logged(of, tmp_path, suffix=suffix, only_labels=only_labels)
    shutil.copytree(of.package, tmp_path / "given" / "package")
    (tmp_path / "given" / "package" / read_package(of.package).entry).unlink()  # nobody can ask it
    more = {"answers": answers, "model": tmp_path / "given"}
    job = attempt(of, student="forest", max_disagreement=15.0, more=more)
    result = dict(Distil().run(job))
    assert result["teacher"] == "its logged answers"
    assert result["disagreement"]["points"] <= 15.0
    assert result["rows"]["mixed"] == 0
    assert result["accuracy"]["before"] > 0.9
    assert "times_quicker" not in result["time"]["one"]
    assert len(job.offered) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label\n0\n", "1 rows, and the sample has"),
        ("other\n" + "1\n" * 284, "the columns other"),
        ("label\n" + "x\n" * 284, "label 'x'"),
        ("probabilities_0,probabilities_1\n" + ",1\n" * 284, "missing"),
    ],
)
def test_answers_that_do_not_fit_the_sample_are_refused(teacher, attempt, tmp_path, text, words) -> None:
    of = teacher("cancer")
    (tmp_path / "answers.csv").write_text(text)
    job = attempt(of, student="tree", more={"answers": tmp_path / "answers.csv"})
    with pytest.raises(InvalidRequest, match=words):
        Distil().run(job)
