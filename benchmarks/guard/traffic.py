"""Traffic as it was recorded on a real platform, and drawn from again: times, latencies and labels keep their company.

    python -m benchmarks.guard record

What makes real traffic hard for statistics is kept: slow moments hit everything that is under way, and come in bursts.
"""

from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from benchmarks.guard import models
from tests.faults.load import Load, Question

from modelyard.testing.platform import running_platform

RECORDED = Path(__file__).parent / "recorded.npz"
WORK = 4


@dataclass(frozen=True)
class Recording:
    """Requests in the order of their arrival: seconds since the start, seconds until the answer, index of the label."""

    arrived: np.ndarray
    took: np.ndarray
    label: np.ndarray

    @classmethod
    def load(cls) -> "Recording":
        """The recording that the repository has."""
        held = np.load(RECORDED)
        return cls(held["arrived"].astype("f8"), held["took"].astype("f8"), held["label"].astype("i8"))

    def __len__(self) -> int:
        return len(self.arrived)


def record(directory: Path, *, seconds: float = 150.0, rate: float = 60.0) -> Recording:
    """Ask a model of some milliseconds a run at drawn times, as many other things go on as do."""
    with running_platform(directory, "--servers", "2") as platform, platform.client() as client:
        client.upload(models.write(directory / "model", models.Version(work=WORK)), name="colours")
        url = client.deploy("colours").info.url + "/infer"
        drawn = models.rows(2000, poisoned=0.0)
        labels = _labels(url, drawn)
        questions = [Question("/v2/models/colours/infer", models.body(row)) for row in drawn]
        with Load(platform.inference_url, questions, rate, 30.0, 1) as load:
            load.wait_for(int(seconds * rate), limit_s=10 * seconds)
    entries = sorted((each for each in load.ledger.entries if each.outcome == "ok"), key=lambda each: each.due)
    return Recording(
        np.array([each.due for each in entries]),
        np.array([each.latency for each in entries]),
        np.array([labels[each.number % len(labels)] for each in entries]),
    )


def keep(recording: Recording) -> None:
    """Write it where the repository has it: milliseconds of arrival, tens of microseconds of latency are enough."""
    np.savez_compressed(
        RECORDED,
        arrived=np.round(recording.arrived, 3),
        took=np.round(recording.took, 5).astype("f4"),
        label=recording.label.astype("u1"),
    )


def _labels(url: str, rows: list[list[float]]) -> list[int]:
    """What the model answers to each."""
    data = [value for row in rows for value in row]
    body = {"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": data}]}
    answer = httpx.post(url, json=body, timeout=300, trust_env=False).raise_for_status().json()
    given = next(output["data"] for output in answer["outputs"] if output["name"] == "label")
    return [models.LABELS.index(label) for label in given]
