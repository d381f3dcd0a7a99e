"""The search: every form gets a look, the hopeful ones get every setting, and the best of those are measured for long.

All points of a stage are measured in turns, in an order by chance, so that what else the machine does meets all alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.domain.errors.platform import JobFailed
from modelyard.foundation.samples import Sample
from modelyard.processes.jobs.optimising.figures import LEAST_ROUNDS
from modelyard.processes.jobs.optimising.points import Form, Point, default_batching, hopeful, settings_of
from modelyard.processes.jobs.optimising.pool import Conditions, Pool, serving

if TYPE_CHECKING:
    import numpy as np

_LOOK, _SETTINGS = 0.15, 0.25
"""Parts of the time that the first two stages take."""
_LONG: Final = 1 - _LOOK - _SETTINGS
_SHORTEST_S: Final = (0.25, 1.0)
"""A round is never shorter than the first, nor, where it would have fewer than twenty requests, than the second."""
_FEW: Final = 20
_MOST_FORMS, _MOST_POINTS = 4, 6
ROUNDS: Final = 6
Tell = Callable[[float, str], None]
"""Hears how far the search is, from 0 to 1, and with what."""


@dataclass(slots=True)
class Findings:
    """Points that were measured for long, the default first, and those that were put aside or failed."""

    kept: list[Point] = field(default_factory=list)
    aside: list[Point] = field(default_factory=list)
    round_s: float = 0.0

    @property
    def default(self) -> Point:
        """The model as it is, served as the platform does when nobody says how.

        Raises:
            JobFailed: it could not be measured.
        """
        found = next((point for point in self.kept if point.is_default), None)
        if found is None:
            reasons = [point.reason for point in self.aside if point.is_default and point.reason]
            raise JobFailed(
                f"the model as it is cannot be measured: {reasons[0] if reasons else 'no round came through'}",
                hint="ask for less a second with rate, or for fewer rows",
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search. `seconds` is the time of the load in all, where that leaves enough for each round."""

    sample: Sample
    conditions: Conditions
    p99_ms: float
    seconds: float
    place: Path
    chance: "np.random.Generator"
    tell: Tell

    async def run(self, forms: Sequence[Form]) -> Findings:
        """Measure; what was found."""
        found = Findings()
        first = [self._default(form, is_default=index == 0) for index, form in enumerate(forms)]
        async with serving(first, self.conditions, place=self.place / "look") as pool:
            await self._turn(pool, first, seconds=self._share(_LOOK, len(first)), done=(0.0, _LOOK))
        best = hopeful(first, most=_MOST_FORMS, p99_ms=self.p99_ms)
        found.aside += [point for point in first if point not in best and not point.is_default]
        points = [
            point
            for form in [forms[0], *(each.form for each in best if each.form is not forms[0])]
            for point in settings_of(
                form,
                threads=self.conditions.cores,
                default_threads=self.conditions.threads,
                first=form is forms[0],
            )
        ]
        async with serving(points, self.conditions, place=self.place / "settings") as pool:
            await self._turn(pool, points, seconds=self._share(_SETTINGS, len(points)), done=(_LOOK, _LOOK + _SETTINGS))
            kept = hopeful(points, most=_MOST_POINTS, p99_ms=self.p99_ms)
            found.aside += [point for point in points if point not in kept]
            for point in kept:
                point.forget()
            found.round_s = self._share(_LONG, len(kept) * ROUNDS)
            for number in range(ROUNDS):
                begin, step = _LOOK + _SETTINGS + _LONG * number / ROUNDS, _LONG / ROUNDS
                await self._turn(pool, kept, seconds=found.round_s, done=(begin, begin + step))
        found.kept = [point for point in kept if not point.reason and len(point.cost) >= LEAST_ROUNDS]
        found.aside += [point for point in kept if point not in found.kept]
        return found

    def _default(self, form: Form, *, is_default: bool) -> Point:
        return Point(form=form, threads=self.conditions.threads, batching=default_batching(form), is_default=is_default)

    def _share(self, part: float, count: int) -> float:
        least, most = _SHORTEST_S
        return max(least, min(most, _FEW / self.conditions.rate), self.seconds * part / max(1, count))

    async def _turn(self, pool: Pool, points: Sequence[Point], *, seconds: float, done: tuple[float, float]) -> None:
        """One round of every point that has not failed."""
        begin, end = done
        for index, place in enumerate(self.chance.permutation(len(points)).tolist()):
            point = points[place]
            if point.reason:
                continue
            self.tell(begin + (end - begin) * index / len(points), point.title)
            await pool.measure(point, self.sample, self.conditions, seconds=seconds, chance=self.chance)
