"""Attempts of the job `train` on real tables, and what the intake makes of the model that comes out."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.foundation.documents import read_package
from modelyard.integrations.training.train import Train
from modelyard.testing.attempts import RecordedAttempt
from modelyard.testing.audited import audited

sys.path.insert(0, str(Path(__file__).parent))

Run = Callable[..., "Trained"]


def write(table: Any, place: Path, name: str) -> Path:
    """A data frame as CSV, arrays as `.npz`."""
    if isinstance(table, pd.DataFrame):
        table.to_csv(place / f"{name}.csv", index=False)
        return place / f"{name}.csv"
    np.savez(place / f"{name}.npz", **table)
    return place / f"{name}.npz"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(recipe, table, *, version=None, earlier=None, **parameters)`: result, attempt, and the version if any."""
    count = iter(range(100))

    def train(
        recipe: dict[str, Any] | None, table: Any, *, version: Path | None = None, earlier: Any = None, **more: Any
    ) -> Trained:
        place = tmp_path / str(next(count))
        place.mkdir()
        inputs = {"data": write(table, place, "data")}
        if version is not None:
            inputs["model"], more["parent"] = version, "m:1"
        if earlier is not None:
            inputs["earlier"] = write(earlier, place, "earlier")
        seed = more.pop("seed", 0)
        given = {**more, **({"recipe": recipe, "name": "m"} if recipe is not None else {})}
        parameters = check_job(find_kind("train"), given, inputs)
        attempt = RecordedAttempt(place / "attempt", parameters, inputs, kind="train", seed=seed)
        result = dict(Train().run(attempt))
        json.dumps(result)
        return Trained(place, result, attempt)

    return train


@dataclass
class Trained:
    """What a run came to."""

    place: Path
    result: dict[str, Any]
    attempt: RecordedAttempt

    @cached_property
    def version(self) -> Path:
        """As a job is given a version: `files` and `package`, after the audit."""
        return _version(self.place, self.attempt)


def _version(place: Path, attempt: RecordedAttempt) -> Path:
    [offered] = attempt.offered
    files = {"model.skops": offered.data, "config.json": json.dumps(offered.config).encode()}
    package = audited(place / "audit", files)
    given = place / "version"
    (given / "files").mkdir(parents=True)
    for name, data in files.items():
        (given / "files" / name).write_bytes(data)
    (given / "package").symlink_to(package)
    return given


@pytest.fixture
def contract() -> Callable[[Path], Any]:
    return lambda version: read_package(version / "package").contract


@pytest.fixture
def answers() -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    """What the served form of a version answers to V2 inputs, by output of the graph."""
    import onnxruntime

    def ask(version: Path, inputs: dict[str, Any]) -> dict[str, Any]:
        package = read_package(version / "package")
        session = onnxruntime.InferenceSession(str(version / "package" / package.entry))
        return dict(zip([each.name for each in session.get_outputs()], session.run(None, inputs), strict=True))

    return ask
