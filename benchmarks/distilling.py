"""python -m benchmarks.distilling: students of forests of 500 trees on real data, as a table.

The teacher learns from half of a set; the other half is the sample, of which 40 % are held out and judged by. Rows made
by mixing the rest are answered by the teacher. Times are ratios of one thread, the two models in turn.
"""

import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import train_test_split

from modelyard.domain.errors import ModelyardError
from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.domain.job_kinds.distil import STUDENTS
from modelyard.integrations.distilling.distil import Distil
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import given_model

_SETS: dict[str, tuple[Any, Any]] = {
    "digits": (load_digits, RandomForestClassifier(500, random_state=0)),
    "breast cancer": (load_breast_cancer, RandomForestClassifier(500, random_state=0)),
    "diabetes": (load_diabetes, RandomForestRegressor(500, random_state=0)),
}


def main(students: list[str]) -> None:
    """Print the table."""
    print("| forest of 500 | student | differs, points (95 %) | score before → after | size | one row | 64 rows |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (load, model) in _SETS.items():
            rows, right = load(return_X_y=True)
            known, held, of_known, of_held = train_test_split(rows, right, test_size=0.5, random_state=0)
            given = given_model(Path(place) / name, model.fit(known, of_known))
            sample = Path(place) / f"{name}.npz"
            np.savez(sample, rows=held.astype("f4"), target=of_held)
            for student in students:
                print(_row(name, student, {"model": given, "sample": sample}), flush=True)


def _row(name: str, student: str, inputs: dict[str, Path]) -> str:
    """The first student of this kind within a point, else the nearest."""
    try:
        done = _distilled(name, student, inputs, 1.0)
    except ModelyardError as error:
        done = _distilled(name, student, inputs, float(re.findall(r"differs by ([\d.]+) points", error.detail)[0]))
    differs, scores, times = done["disagreement"], done["accuracy"], done["time"]
    return (
        f"| {name} | {done['student']} | {differs['points']:.2f} ({differs['low']:.2f} to {differs['high']:.2f}) |"
        f" {scores['before']:.4g} → {scores['after']:.4g} | {done['size']['ratio']:.3f} |"
        f" {times['one']['times_quicker']:.1f} × | {times['batch']['times_quicker']:.1f} × |"
    )


def _distilled(name: str, student: str, inputs: dict[str, Path], most: float) -> dict[str, Any]:
    wish = {"student": student, "max_disagreement": most, "held_out": 0.4, "target": "target"}
    with tempfile.TemporaryDirectory() as place:
        filled = check_job(find_kind("distil"), wish, inputs)
        attempt = RecordedAttempt(Path(place), filled, inputs, kind="distil")
        return dict(Distil().run(attempt))


if __name__ == "__main__":
    main(sys.argv[1:] or list(STUDENTS))
