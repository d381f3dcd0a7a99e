"""What the servers' reports say of one canary, as readings of both arms."""

from collections.abc import Iterable, Sequence

from modelyard.control.traffic.guard.counts import Arms, Counts
from modelyard.control.traffic.guard.evidence import Evidence, Reading
from modelyard.control.traffic.guard.keeping import Canary
from modelyard.domain.routing import ServerReport
from modelyard.domain.sketches import Sketch


def split_of(canary: Canary, weight: int) -> str:
    """The shares as the servers write them, when the canary has `weight` percent."""
    shares = sorted(((canary.stable, 100 - weight), (canary.revision, weight)))
    return ",".join(f"{revision}={share}" for revision, share in shares)


def readings_of(canary: Canary, reports: Iterable[ServerReport]) -> tuple[Reading, ...]:
    """One reading for each epoch in which exactly these two revisions were compared."""
    epochs: dict[tuple[str, str], dict[int, Sketch]] = {}
    for report in reports:
        for sketch in report.sketches:
            if (sketch.project, sketch.service) == (canary.project, canary.service):
                epochs.setdefault((sketch.epoch, sketch.split), {})[sketch.revision] = sketch
    wanted = {canary.stable, canary.revision}
    return tuple(
        Reading(
            epoch=epoch,
            split=split,
            arms=Arms(stable=Counts.of(sketches[canary.stable]), canary=Counts.of(sketches[canary.revision])),
        )
        for (epoch, split), sketches in sorted(epochs.items())
        if sketches.keys() == wanted
    )


def epochs_over(evidence: Evidence, readings: Sequence[Reading]) -> list[str]:
    """Epochs that will not be reported again: their process tells of later ones, and no longer of them.

    An epoch reads PROCESS-NUMBER. A process that is silent is left alone, for it may be heard again.
    """
    told = {reading.epoch for reading in readings}
    newest: dict[str, int] = {}
    for epoch in told:
        process, _, number = epoch.rpartition("-")
        newest[process] = max(newest.get(process, 0), int(number))
    over = []
    for epoch in evidence.seen:
        process, _, number = epoch.rpartition("-")
        if epoch not in told and number.isdigit() and int(number) < newest.get(process, 0):
            over.append(epoch)
    return over
