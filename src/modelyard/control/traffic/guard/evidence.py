"""Evidence against a canary, gathered block by block from cumulative sketches; a value that the records keep.

It is a function of what the servers counted, not of how often one looked: each look takes what was counted since the
last one, so a control plane that was away, or ends between two looks, neither loses nor doubles anything. Blocks are
closed by how many requests they hold, never by how these ended, and never mix two settings of the shares.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from modelyard.control.traffic.guard import odds
from modelyard.control.traffic.guard.bounds import seen_quantile
from modelyard.control.traffic.guard.counts import Arms, Counts, total
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.rollout import Watched
from modelyard.domain.sketches import LAST_LATENCY, OTHER, latency_edge

Ratios = tuple[float, ...]
LATENCY_QUANTILES: Final = (0.5, 0.95, 0.99)
NUMBER_QUANTILES: Final = (0.1, 0.5, 0.9)
BLOCK: Final = 20
"""Requests of each arm that close a block. A block with requests of one arm only would say nothing."""
LEARN: Final = 50
"""Requests of stable from which its quantiles and its labels are taken; what came before them is not judged by them."""
_CATEGORIES: Final = 16
_LEAST_SHARE: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one epoch of one server has counted so far, of both arms."""

    epoch: str
    split: str
    arms: Arms


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a canary.

    `closed` are the counts of closed blocks, `pending` those of blocks that are still open by shares, `seen` what was
    taken of each epoch, `by_split` the canary's requests at each setting of the shares. `ratios` are log likelihood
    ratios by stream; `categories` are the labels that are told apart, chosen once. `peak` is the log of the greatest
    e-value so far. Times are Unix seconds.
    """

    began_at: float
    looked_at: float
    closed: Arms = field(default_factory=Arms)
    pending: Mapping[str, Arms] = field(default_factory=dict)
    seen: Mapping[str, Arms] = field(default_factory=dict)
    by_split: Mapping[str, int] = field(default_factory=dict)
    ratios: Mapping[str, Ratios] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    blocks: int = 0
    peak: float = 0.0

    @property
    def counted(self) -> Arms:
        """All counts, of open blocks too."""
        return self.closed.plus(total(self.pending.values()))


@dataclass(frozen=True, slots=True)
class Table:
    """One event in one block: on how many requests it fell in each arm. `null` is the log odds ratio allowed."""

    stream: str
    events: int
    canary: int
    all_events: int
    everything: int
    null: float = 0.0


def take(evidence: Evidence, readings: Sequence[Reading], policy: GuardPolicy, *, now: float) -> Evidence:
    """The evidence with what the servers counted since the last look; what comes twice, or late, counts once."""
    pending, seen, by_split = dict(evidence.pending), dict(evidence.seen), dict(evidence.by_split)
    for reading in readings:
        fresh = reading.arms.plus(seen.get(reading.epoch, Arms()), times=-1)
        if not fresh.is_whole or not (fresh.stable.requests or fresh.canary.requests):
            continue  # an older report than the one that was taken already
        seen[reading.epoch] = reading.arms
        pending[reading.split] = pending.get(reading.split, Arms()).plus(fresh)
        by_split[reading.split] = by_split.get(reading.split, 0) + fresh.canary.requests
    if seen == evidence.seen:
        return replace(evidence, looked_at=now)
    present = replace(evidence, pending=pending, seen=seen, by_split=by_split, looked_at=now)
    for split, arms in pending.items():
        if min(arms.stable.requests, arms.canary.requests) >= BLOCK:
            present = _close(present, split, arms, policy)
    return present


def forget(evidence: Evidence, epochs: Sequence[str]) -> Evidence:
    """The evidence without what was taken of epochs that are over; they must never be read again."""
    return replace(evidence, seen={epoch: arms for epoch, arms in evidence.seen.items() if epoch not in epochs})


def log_evidence(evidence: Evidence, policy: GuardPolicy) -> float:
    """Log of the e-value against "not worse in anything watched": the average of those of all streams.

    An average of e-values is one, whatever their dependence (Vovk and Wang 2021, "E-values: calibration, combination
    and applications"), so the level holds for the family; each watched thing has the same weight, and so has each
    stream within it.
    """
    parts = [
        log_share + odds.log_average(evidence.ratios.get(stream, odds.NOTHING))
        for stream, log_share in stream_shares(evidence, policy)
    ]
    top = max(parts)
    return top + math.log(sum(math.exp(part - top) for part in parts))


def log_of_thing(evidence: Evidence, policy: GuardPolicy, prefix: str) -> float:
    """Log of the average e-value of the streams whose name begins with `prefix`."""
    ratios = [
        odds.log_average(evidence.ratios.get(stream, odds.NOTHING))
        for stream, _ in stream_shares(evidence, policy)
        if stream.startswith(prefix)
    ]
    return odds.log_average(tuple(ratios)) if ratios else 0.0


def stream_shares(evidence: Evidence, policy: GuardPolicy) -> list[tuple[str, float]]:
    """All streams with the log of their share of the average."""
    found: list[tuple[str, float]] = []
    for thing in policy.watch:
        streams = _streams(thing, evidence)
        found += [(stream, -math.log(len(policy.watch) * len(streams))) for stream in streams]
    return found


def slower_bucket(bucket: int, policy: GuardPolicy) -> int:
    """The bucket that a canary's latency may reach where stable's reaches `bucket`: errs in the canary's favour."""
    allowed = latency_edge(bucket) * (1 + policy.latency_tolerance) + policy.latency_floor_s
    for later in range(bucket, LAST_LATENCY):
        if latency_edge(later) >= allowed:
            return later
    return LAST_LATENCY


def events_of(counts: Counts, category: str, categories: tuple[str, ...], *, bucket: int | None) -> int:
    """How many predictions fall into `category`: a label, what is no known label, or the numbers above `bucket`."""
    if bucket is not None:
        return counts.above(bucket)
    if category == OTHER:
        return counts.predicted - sum(counts.predictions.get(each, 0) for each in categories)
    return counts.predictions.get(category, 0)


def _close(evidence: Evidence, split: str, arms: Arms, policy: GuardPolicy) -> Evidence:
    ratios = dict(evidence.ratios)
    for table in _tables(evidence, arms, policy):
        added = odds.block_ratios(
            table.events, table.canary, all_events=table.all_events, everything=table.everything, null=table.null
        )
        before = ratios.get(table.stream, odds.NOTHING)
        ratios[table.stream] = tuple(float(one) + float(more) for one, more in zip(before, added, strict=True))
    closed = evidence.closed.plus(arms)
    learned = replace(
        evidence,
        closed=closed,
        pending={each: held for each, held in evidence.pending.items() if each != split},
        ratios=ratios,
        categories=evidence.categories or _learn(closed.stable),
        blocks=evidence.blocks + 1,
    )
    return replace(learned, peak=max(evidence.peak, log_evidence(learned, policy)))


def _tables(evidence: Evidence, arms: Arms, policy: GuardPolicy) -> Iterator[Table]:
    """The block as tables of two by two. What is an event was decided by earlier blocks only."""
    stable, canary = arms.stable, arms.canary
    if Watched.ERRORS in policy.watch:
        everything, events = stable.requests + canary.requests, stable.failures + canary.failures
        yield Table("errors", canary.failures, canary.requests, events, everything)
    if Watched.LATENCY in policy.watch and evidence.closed.stable.timed >= LEARN:
        known = evidence.closed.stable.latencies()
        for quantile in LATENCY_QUANTILES:
            bucket = seen_quantile(known, quantile)
            slow = canary.slower_than(slower_bucket(bucket, policy))
            yield Table(
                f"latency p{quantile * 100:g}",
                slow,
                canary.timed,
                slow + stable.slower_than(bucket),
                stable.timed + canary.timed,
            )
    if Watched.PREDICTIONS in policy.watch and evidence.closed.stable.predicted >= LEARN:
        yield from _prediction_tables(evidence, arms, policy)


def _prediction_tables(evidence: Evidence, arms: Arms, policy: GuardPolicy) -> Iterator[Table]:
    """Two tables a category: one against "more often, by more than is tolerated", one against "less often"."""
    known, tolerance = evidence.closed.stable, policy.prediction_tolerance
    held, everything = arms.canary.predicted, arms.canary.predicted + arms.stable.predicted
    for category, bucket in categories_of(evidence):
        here = events_of(arms.canary, category, evidence.categories, bucket=bucket)
        all_here = here + events_of(arms.stable, category, evidence.categories, bucket=bucket)
        share = events_of(known, category, evidence.categories, bucket=bucket) / known.predicted
        share = min(max(share, _LEAST_SHARE), 1 - _LEAST_SHARE)
        if share + tolerance < 1:
            null = _log_odds(share + tolerance) - _log_odds(share)
            yield Table(f"predictions {category} more", here, held, all_here, everything, null)
        if share - tolerance > 0:
            null = _log_odds(share) - _log_odds(share - tolerance)
            yield Table(f"predictions {category} less", held - here, held, everything - all_here, everything, null)


def categories_of(evidence: Evidence) -> list[tuple[str, int | None]]:
    """The categories that are told apart; those of numbers with the bucket above which a number has to be."""
    if not evidence.closed.stable.is_numeric:
        return [(category, None) for category in (*evidence.categories, OTHER)]
    known = evidence.closed.stable.numbers()
    return [(f"above p{quantile * 100:g}", seen_quantile(known, quantile)) for quantile in NUMBER_QUANTILES]


def _streams(thing: Watched, evidence: Evidence) -> list[str]:
    match thing:
        case Watched.ERRORS:
            return ["errors"]
        case Watched.LATENCY:
            return [f"latency p{quantile * 100:g}" for quantile in LATENCY_QUANTILES]
        case Watched.PREDICTIONS:
            names = [category for category, _ in categories_of(evidence)]
            return [f"predictions {name} {direction}" for name in names for direction in ("more", "less")]


def _learn(stable: Counts) -> tuple[str, ...]:
    """The labels that stable gave most often, once there are enough answers to say so."""
    if stable.predicted < LEARN or stable.is_numeric:
        return ()
    ordered = sorted(stable.predictions, key=lambda key: (-stable.predictions[key], key))
    return tuple(ordered[:_CATEGORIES])


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))
