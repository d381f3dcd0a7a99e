"""Counts of two arms, added and subtracted whole, and asked for what lies beyond a bucket."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelyard.domain.sketches import NUMBER, Sketch

Tally = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted of one arm. The keys of `latency` are buckets as text, so that the records keep them as JSON."""

    requests: int = 0
    failures: int = 0
    latency: Tally = field(default_factory=dict)
    predictions: Tally = field(default_factory=dict)

    @classmethod
    def of(cls, sketch: Sketch) -> "Counts":
        """The counts in a sketch."""
        return cls(
            requests=sketch.requests,
            failures=sketch.failures,
            latency={str(bucket): count for bucket, count in sketch.latency},
            predictions=dict(sketch.predictions),
        )

    def plus(self, other: "Counts", *, times: int = 1) -> "Counts":
        """The sum; with `times` -1 the difference."""
        return Counts(
            requests=self.requests + times * other.requests,
            failures=self.failures + times * other.failures,
            latency=_add(self.latency, other.latency, times),
            predictions=_add(self.predictions, other.predictions, times),
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is negative."""
        return min((self.requests, self.failures, *self.latency.values(), *self.predictions.values())) >= 0

    @property
    def timed(self) -> int:
        """Requests whose latency was counted."""
        return sum(self.latency.values())

    @property
    def predicted(self) -> int:
        """Requests whose prediction was counted."""
        return sum(self.predictions.values())

    @property
    def is_numeric(self) -> bool:
        """Whether predictions are numbers, not labels."""
        return any(key.startswith(NUMBER) for key in self.predictions)

    def latencies(self) -> list[tuple[int, int]]:
        """Buckets with their counts, in order."""
        return sorted((int(bucket), count) for bucket, count in self.latency.items() if count)

    def numbers(self) -> list[tuple[int, int]]:
        """Buckets of numbers with their counts, in order."""
        found = ((key, count) for key, count in self.predictions.items() if key.startswith(NUMBER) and count)
        return sorted((int(key[len(NUMBER) :]), count) for key, count in found)

    def slower_than(self, bucket: int) -> int:
        """Requests in later buckets of latency."""
        return sum(count for each, count in self.latency.items() if int(each) > bucket)

    def above(self, bucket: int) -> int:
        """Predictions in later buckets of numbers."""
        return sum(count for each, count in self.numbers() if each > bucket)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """The same counts of both sides."""

    stable: Counts = field(default_factory=Counts)
    canary: Counts = field(default_factory=Counts)

    def plus(self, other: "Arms", *, times: int = 1) -> "Arms":
        """The sum; with `times` -1 the difference."""
        return Arms(
            stable=self.stable.plus(other.stable, times=times), canary=self.canary.plus(other.canary, times=times)
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is negative."""
        return self.stable.is_whole and self.canary.is_whole


def total(arms: Iterable[Arms]) -> Arms:
    """The sum of all."""
    result = Arms()
    for each in arms:
        result = result.plus(each)
    return result


def _add(one: Tally, other: Tally, times: int) -> Tally:
    result = dict(one)
    for key, count in other.items():
        result[key] = result.get(key, 0) + times * count
    return {key: count for key, count in result.items() if count}
