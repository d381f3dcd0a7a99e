"""Optimisation towards a latency, and the check in service of what it promised."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.domain.access import Verb
from modelyard.domain.errors.base import Detail
from modelyard.domain.job_kinds.compress import COMPRESSION_METHODS, QUICK_METHODS
from modelyard.domain.job_kinds.fields import Choice, Items, JobKind, Number, Parameter, Text

RUNTIMES: Final = ("onnxruntime", "openvino")
_TARGET: Final = Text(text="The column, or array, of the sample that holds the right answers.")
_LOAD: Final[dict[str, Parameter]] = {
    "rate": Number(text="Requests a second, which arrive by chance.", low=0.1, high=100_000, default=50.0),
    "rows": Number(text="Rows of one request.", low=1, high=4096, default=1, whole=True),
}


def _two_ends(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> Sequence[Detail]:
    del inputs
    if len(parameters.get("predicted_ms", ("low", "high"))) == 2:  # noqa: PLR2004  (the two ends)
        return ()
    return [{"field": "parameters.predicted_ms", "expected": "two ends: the lowest and the highest, in ms"}]


OPTIMISE: Final = JobKind(
    name="optimise",
    text="Finds the cheapest way to serve a model within a latency and an accuracy, measured through real servers.",
    verb=Verb.UPLOAD,
    parameters={
        "p99_ms": Number(
            text="What 99 of 100 requests are to be answered within, in ms.", low=0.01, high=60_000, required=True
        ),
        "max_drop": Number(
            text="Points that may be lost: hundredths of the rows, or of the spread of the numbers.",
            low=0,
            high=100,
            default=0.5,
        ),
        "target": _TARGET,
        **_LOAD,
        "methods": Items(
            text="The forms that are tried beside the model as it is.",
            each=Choice(text="A method of compression.", choices=COMPRESSION_METHODS),
            default=QUICK_METHODS,
        ),
        "runtimes": Items(
            text="The runtimes that are tried; one that is not installed is left out.",
            each=Choice(text="A runtime.", choices=RUNTIMES),
            default=RUNTIMES,
        ),
        "servers": Number(
            text="Model servers that share the load; without it, one a core, as the platform has them.",
            low=1,
            high=256,
            whole=True,
        ),
        "seconds": Number(text="How long is measured in all.", low=5, high=7200, default=120.0),
        "name": Text(text="The model whose version the chosen form becomes; without it, the same.", longest=63),
        "parent": Text(text="The version that it is made from, as NAME:VERSION; kept with the new one."),
    },
    inputs=("model", "sample"),
    network=True,
)
MEASURE: Final = JobKind(
    name="measure",
    text="Loads a service with requests as they would arrive, and says what 99 of 100 are answered within.",
    verb=Verb.INFER,
    parameters={
        "service": Text(text="The service that is asked.", required=True, longest=63),
        "target": _TARGET,
        **_LOAD,
        "seconds": Number(text="How long is measured in all.", low=5, high=7200, default=30.0),
        "p99_ms": Number(text="What 99 of 100 requests are to be answered within, in ms.", low=0.01, high=60_000),
        "predicted_ms": Items(
            text="What was predicted for it: the lowest and the highest.",
            each=Number(text="In ms.", low=0, high=3_600_000),
            most=2,
        ),
    },
    inputs=("sample",),
    network=True,
    more=_two_ends,
)
