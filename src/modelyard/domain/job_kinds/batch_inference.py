"""Batch inference: a file in, a file of predictions out, asked of a service as every caller asks it."""

from typing import Final

from modelyard.domain.access import Verb
from modelyard.domain.job_kinds.fields import Choice, JobKind, Number, Text

FORMATS: Final = ("csv", "jsonl", "npy", "parquet")
BATCH_INFERENCE: Final = JobKind(
    name="batch-inference",
    text="Asks a service for a prediction for every row of a file.",
    verb=Verb.INFER,
    parameters={
        "service": Text(text="The service that is asked.", required=True, longest=63),
        "version": Text(text="The version that is asked; without it, the one that has the traffic.", longest=63),
        "format": Choice(text="What the file is; without it, its name says it.", choices=FORMATS),
        "output": Choice(text="What the predictions are written as.", choices=("csv", "jsonl"), default="csv"),
        "chunk_rows": Number(text="Rows of one request.", low=1, high=100_000, default=256, whole=True),
        "at_once": Number(text="Requests that are under way at once.", low=1, high=64, default=4, whole=True),
    },
    inputs=("data",),
    network=True,
)
