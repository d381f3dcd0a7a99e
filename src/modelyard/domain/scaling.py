"""How many isolated workers a service is to have now: from its load, its schedule and what was thought before. Pure.

Up follows the load at once, within a doubling; down follows the highest number that was thought right within the
stabilisation window, so that a dip between two waves takes nothing away. Zero comes only after a time without requests,
and the first request that waits ends it. The latency rule is that of Kubernetes' HorizontalPodAutoscaler
(`ceil(present * measured / target)`, with its tolerance of a tenth).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Final
from zoneinfo import ZoneInfo

TOLERANCE: Final = 0.1
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Other bounds for some hours of some days, in the times of `timezone`.

    An `end` before the `start` lies in the next day. Of several windows that hold, the last one counts.
    """

    days: tuple[str, ...]
    start: time
    end: time
    min: int
    max: int
    timezone: str = "UTC"

    def holds(self, now: datetime) -> bool:
        """Whether `now` lies in it."""
        local = now.astimezone(ZoneInfo(self.timezone))
        clock, today = local.time().replace(tzinfo=None), local.weekday()
        if self.start <= self.end:
            return DAYS[today] in self.days and self.start <= clock < self.end
        return (DAYS[today] in self.days and clock >= self.start) or (DAYS[today - 1] in self.days and clock < self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What moves the number of workers. Targets are for one worker; those that are None are not looked at.

    `idle_s` is the time without a request after which a service whose least number is 0 goes to 0. Fewer workers are
    taken only when all of the last `stabilise_s` agree, and no change comes within `cooldown_s` of the one before it,
    but for a first request that waits.
    """

    target_in_flight: float | None = None
    target_rate: float | None = None
    target_latency_ms: float | None = None
    idle_s: float = 300.0
    stabilise_s: float = 60.0
    cooldown_s: float = 5.0
    schedule: tuple[Window, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether anything but a person may change the number."""
        targets = (self.target_in_flight, self.target_rate, self.target_latency_ms)
        return any(target is not None for target in targets) or bool(self.schedule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What was measured, over all servers: means of the last seconds. `waiting` requests have no worker at all."""

    in_flight: float = 0.0
    rate: float = 0.0
    latency_ms: float | None = None
    waiting: int = 0
    quiet_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """A number that was thought right at a moment (Unix seconds), before it was held back."""

    at: float
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many workers, why in words, the figures behind it, and what the next decision has to know."""

    wanted: int
    reason: str
    inputs: Mapping[str, object] = field(default_factory=dict)
    thoughts: tuple[Thought, ...] = ()


def decide(  # noqa: PLR0913  (each is one thing that a decision follows from)
    scaling: Scaling,
    *,
    bounds: tuple[int, int],
    present: int,
    load: Load,
    thoughts: Sequence[Thought] = (),
    changed_at: float = 0.0,
    now: datetime,
) -> Decision:
    """The number of workers from now on. `bounds` are least and most; `changed_at` is when the number changed last."""
    moment = now.timestamp()
    low, high, which = _bounds(scaling, bounds, now)
    number, why = _ask_load(scaling, present, load, low=low)
    thought = min(max(number, low), high)
    kept = tuple(each for each in thoughts if each.at > moment - scaling.stabilise_s)
    kept = (*kept, Thought(at=moment, number=thought))
    wanted, held = _hold_back(scaling, present, thought, kept, since=moment - changed_at, load=load)
    wanted = min(max(wanted, low), high)
    inputs = {
        "present": present,
        "in_flight": round(load.in_flight, 2),
        "rate": round(load.rate, 2),
        "latency_ms": None if load.latency_ms is None else round(load.latency_ms, 2),
        "waiting": load.waiting,
        "quiet_s": round(load.quiet_s, 1),
        "thought": thought,
        "min": low,
        "max": high,
    }
    bound = "" if number == thought else f"; {which} allow {low} to {high}"
    return Decision(wanted=wanted, reason=f"{why}{bound}{held}", inputs=inputs, thoughts=kept)


def _bounds(scaling: Scaling, bounds: tuple[int, int], now: datetime) -> tuple[int, int, str]:
    for window in reversed(scaling.schedule):
        if window.holds(now):
            hours = f"{window.start:%H:%M}-{window.end:%H:%M}"
            return window.min, window.max, f"the bounds of {'/'.join(window.days)} {hours}"
    return *bounds, "the bounds"


def _ask_load(scaling: Scaling, present: int, load: Load, *, low: int) -> tuple[int, str]:
    """The number that the load alone asks for, and the words for it."""
    if load.waiting and not present:
        return 1, f"{load.waiting} requests wait for a first worker"
    if low == 0 and load.quiet_s >= scaling.idle_s and not load.in_flight:
        return 0, f"no request for {load.quiet_s:.0f} s"
    asked = [(1, "something is asked now and then")] if low == 0 else [(low, "the least number")]
    if scaling.target_in_flight:
        number = math.ceil(load.in_flight / scaling.target_in_flight)
        asked.append((number, f"{load.in_flight:.1f} in flight ÷ {scaling.target_in_flight:g} a worker"))
    if scaling.target_rate:
        number = math.ceil(load.rate / scaling.target_rate)
        asked.append((number, f"{load.rate:.1f} requests/s ÷ {scaling.target_rate:g} a worker"))
    if scaling.target_latency_ms and load.latency_ms is not None and present:
        over = load.latency_ms / scaling.target_latency_ms
        number = present if abs(over - 1) <= TOLERANCE else math.ceil(present * over)
        asked.append((number, f"{load.latency_ms:.1f} ms where {scaling.target_latency_ms:g} ms is the aim"))
    return max(asked, key=lambda each: each[0])


def _hold_back(
    scaling: Scaling, present: int, thought: int, thoughts: Sequence[Thought], *, since: float, load: Load
) -> tuple[int, str]:
    """`thought`, or what of it is done now, and the words for the rest."""
    if thought == present or (not present and load.waiting):
        return thought, ""
    if since < scaling.cooldown_s:
        return present, f"; it changed {since:.0f} s ago and rests for {scaling.cooldown_s:g} s"
    if thought > present:
        most = max(2 * present, present + 1)
        return min(thought, most), f"; {thought} in steps of at most twice as many" if thought > most else ""
    highest = max(each.number for each in thoughts)
    if highest > thought:
        return min(highest, present), f"; {highest} was right within the last {scaling.stabilise_s:g} s"
    return thought, ""
