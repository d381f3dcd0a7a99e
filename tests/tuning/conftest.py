"""Attempts of the job `tune`, with scripts and recipes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.integrations.tuning.tune import Tune
from modelyard.testing.attempts import RecordedAttempt


@pytest.fixture
def tune(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """`tune(script=TEXT, data=PATH, root=…, seed=…, **parameters)`: the result and the attempt."""

    def run(
        *, script: str | None = None, data: Path | None = None, root: Path | None = None, seed: int = 0, **wish: Any
    ) -> SimpleNamespace:
        inputs: dict[str, Path] = {}
        if script is not None:
            inputs["script"] = tmp_path / "train.py"
            inputs["script"].write_text(script)
        if data is not None:
            inputs["data"] = data
        filled = check_job(find_kind("tune"), wish, inputs)
        attempt = RecordedAttempt(root or tmp_path / "attempt", filled, inputs, kind="tune", seed=seed)
        result = dict(Tune().run(attempt))
        json.dumps(result)
        return SimpleNamespace(result=result, attempt=attempt)

    return run
