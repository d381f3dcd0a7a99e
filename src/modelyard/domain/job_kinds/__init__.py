"""The kinds of jobs: their names, what they need, and what their parameters may be. No code of a kind is here.

A submitted job is checked against its kind before it is accepted, so that a mistake is told at once and with its field.
"""

from collections.abc import Mapping
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.job_kinds.batch_inference import BATCH_INFERENCE
from modelyard.domain.job_kinds.compress import COMPRESS
from modelyard.domain.job_kinds.distil import DISTIL
from modelyard.domain.job_kinds.fields import Choice, Flag, Items, JobKind, Number, Parameter, Table, Text
from modelyard.domain.job_kinds.fine_tune import FINE_TUNE
from modelyard.domain.job_kinds.optimise import MEASURE, OPTIMISE
from modelyard.domain.job_kinds.train import TRAIN
from modelyard.domain.job_kinds.tune import TUNE

KINDS: Final[Mapping[str, JobKind]] = {
    kind.name: kind
    for kind in (
        BATCH_INFERENCE,
        COMPRESS,
        DISTIL,
        FINE_TUNE,
        MEASURE,
        OPTIMISE,
        TRAIN,
        TUNE,
    )
}


def find_kind(name: str, kinds: Mapping[str, JobKind] = KINDS) -> JobKind:
    """The kind of this name, or `InvalidRequest` with those there are."""
    kind = kinds.get(name)
    if kind is None:
        raise InvalidRequest(
            f"there is no kind of job {quote(name)}",
            hint=f"known: {', '.join(sorted(kinds))}",
            details=[{"field": "kind", "expected": sorted(kinds), "received": name[:60]}],
        )
    return kind


def check_job(kind: JobKind, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` with the defaults filled in; `inputs` are looked at by name only.

    Raises:
        InvalidRequest: every wrong field in `details`, with what was expected.
    """
    return kind.check(parameters, inputs)


__all__ = [
    "KINDS",
    "Choice",
    "Flag",
    "Items",
    "JobKind",
    "Number",
    "Parameter",
    "Table",
    "Text",
    "check_job",
    "find_kind",
]
