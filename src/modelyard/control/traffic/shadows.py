"""How a shadow's answers compare with those that were given: the servers' sketches of it, added up."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from modelyard.domain.routing import ServerReport
from modelyard.domain.service import ServiceSpec
from modelyard.domain.sketches import ShadowSketch, latency_edge
from modelyard.foundation.documents import to_plain

_EXAMPLES: Final = 16
_SUMS: Final = ("copied", "compared", "failed", "dropped", "differing", "rows", "other_labels")


def shadow_document(reports: Iterable[ServerReport], spec: ServiceSpec, *, revision: int) -> dict[str, Any] | None:
    """The report about the shadow that `spec`, of this revision, names, nought where no server holds it yet.

    None when it names none.
    """
    if spec.shadow is None:
        return None
    sketches = [
        sketch
        for report in reports
        for sketch in report.shadows
        if (sketch.project, sketch.service, sketch.digest) == (spec.project, spec.name, spec.shadow.digest)
    ]
    asked = ShadowSketch(
        project=spec.project,
        service=spec.name,
        revision=revision,
        version=spec.shadow.version,
        digest=spec.shadow.digest,
        epoch="",
    )
    return {**_document(sketches, asked), "model": spec.shadow.model, "percent": spec.shadow.percent}


def _document(sketches: Sequence[ShadowSketch], newest: ShadowSketch) -> dict[str, Any]:
    sums = {name: sum(getattr(sketch, name) for sketch in sketches) for name in _SUMS}
    answered = _histogram(sketch.answered_latency for sketch in sketches)
    shadow = _histogram(sketch.shadow_latency for sketch in sketches)
    examples = [to_plain(each) for sketch in sketches for each in sketch.examples]
    return {
        "project": newest.project,
        "service": newest.service,
        "revision": newest.revision,
        "version": newest.version,
        "digest": newest.digest,
        "servers": len(sketches),
        **sums,
        "under_way": sums["copied"] - sums["compared"] - sums["failed"],
        "differing_share": sums["differing"] / sums["compared"] if sums["compared"] else None,
        "other_labels_share": sums["other_labels"] / sums["rows"] if sums["rows"] else None,
        "largest_difference": max((sketch.largest_difference for sketch in sketches), default=0.0),
        "largest_relative": max((sketch.largest_relative for sketch in sketches), default=0.0),
        "run_seconds": {
            name: {f"p{quantile * 100:g}": _quantile(counts, quantile) for quantile in (0.5, 0.95, 0.99)}
            for name, counts in (("answered", answered), ("shadow", shadow))
        },
        "examples": examples[:_EXAMPLES],
        "last_failure": next((sketch.last_failure for sketch in sketches if sketch.last_failure), ""),
    }


def _histogram(parts: Iterable[Sequence[tuple[int, int]]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for part in parts:
        for bucket, count in part:
            counts[bucket] = counts.get(bucket, 0) + count
    return counts


def _quantile(counts: dict[int, int], quantile: float) -> float | None:
    wanted, below = quantile * sum(counts.values()), 0
    for bucket, count in sorted(counts.items()):
        below += count
        if below >= wanted:
            return latency_edge(bucket)
    return None
