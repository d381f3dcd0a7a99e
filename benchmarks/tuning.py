"""python -m benchmarks.tuning: what a study costs beyond its trials, as a part of the time that they take.

A script that computes for a known time is tried through the job `tune`, one at a time and two at a time, and is run by
plain `python` as often; the ratio of the two walls is what the platform adds, or saves by forking from a warm process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from modelyard.domain.job_kinds import check_job, find_kind
from modelyard.integrations.tuning.tune import Tune
from modelyard.testing.attempts import RecordedAttempt

_SCRIPT = """
import json, os, time
import sklearn.ensemble
trial = json.load(open(os.environ["MODELYARD_TRIAL"]))
end = time.process_time() + trial["parameters"]["seconds"]
while time.process_time() < end:
    sum(range(10_000))
print(json.dumps({"score": -trial["parameters"]["x"] ** 2}), file=open("metrics.jsonl", "a"))
"""
_TRIALS = 20


def main() -> None:
    """Print the table."""
    print("| a trial computes | at once | wall, s | trials, s | overhead | wall / wall of plain python |")
    print("|---|---|---|---|---|---|")
    for seconds in (0.5, 2.0):
        for parallel in (1, 2):
            with tempfile.TemporaryDirectory() as place:
                script = Path(place) / "script.py"
                script.write_text(_SCRIPT)
                found = _studied(script, seconds, parallel)
                plain = _plain(script, seconds, parallel)
            ratio = found["wall"] / plain
            print(
                f"| {seconds:g} s | {parallel} | {found['wall']:.1f} | {found['trials']:.1f} |"
                f" {100 * found['overhead']:.1f} % | {ratio:.2f} |",
                flush=True,
            )


def _studied(script: Path, seconds: float, parallel: int) -> dict[str, Any]:
    wish = {
        "space": {"x": {"low": -1, "high": 1}},
        "metrics": ["score"],
        "trials": _TRIALS,
        "parallel": parallel,
        "fixed": {"seconds": seconds},
    }
    filled = check_job(find_kind("tune"), wish, {"script": {}})
    attempt = RecordedAttempt(script.parent / "attempt", filled, {"script": script}, kind="tune")
    return dict(Tune().run(attempt)["seconds"])


def _plain(script: Path, seconds: float, parallel: int) -> float:
    (script.parent / "trial.json").write_text(f'{{"parameters": {{"x": 0.5, "seconds": {seconds}}}}}')
    surroundings = {**os.environ, "MODELYARD_TRIAL": str(script.parent / "trial.json")}
    began, left, running = time.monotonic(), _TRIALS, list[subprocess.Popen[bytes]]()
    while left or running:
        while left and len(running) < parallel:
            running.append(subprocess.Popen([sys.executable, script], cwd=script.parent, env=surroundings))
            left -= 1
        running.pop(0).wait()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
