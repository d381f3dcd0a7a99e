"""How many requests may be in hand so that the last of them is still answered in time.

A queue that is bound by number alone is too long for a slow model and too short for a quick one. The bound here is one
of time: what the service was measured to get done (Little's law: in hand = rate · wait) in half of its deadline, never
more than the fixed bound. Measured once a batch; refusing costs a comparison. Requests are let in by their urgency
(RFC 9218, "Extensible Prioritization Scheme for HTTP"): the last tenth of the room is for the urgent, and what may wait
is refused from seven tenths on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_NEW_SHARE: Final = 0.2
_MOST_TIMES: Final = 4.0
_BELIEVED_AT: Final = 3
_OF_DEADLINE: Final = 0.5
_FEWEST: Final = 4
_NOTABLE: Final = 0.1
_LOW, _USUAL = 0.7, 0.9
_USUAL_URGENCY: Final = 3


@dataclass(frozen=True, slots=True)
class Room:
    """Requests in hand up to which those that may wait, the usual ones, and the urgent ones are let in."""

    low: int
    usual: int
    urgent: int

    @classmethod
    def of(cls, bound: int) -> "Room":
        """The room under one bound; a small one is not divided."""
        return cls(max(1, int(bound * _LOW)), max(1, round(bound * _USUAL)), bound)

    def for_urgency(self, urgency: int) -> int:
        """Where a request of this urgency is refused."""
        if urgency == _USUAL_URGENCY:
            return self.usual
        return self.urgent if urgency < _USUAL_URGENCY else self.low


class Pressure:
    """The bound of one service in this process. `on_change` is told the room when it changed notably."""

    __slots__ = ("_bound", "_each_s", "_last", "_most", "_odd", "_on_change", "_patience_s")

    def __init__(self) -> None:
        self._most = 0
        self._patience_s = 0.0
        self._each_s = 0.0
        self._last = 0.0
        self._bound = 0
        self._odd = 0
        self._on_change: Callable[[Room], None] | None = None

    def limit(self, *, most: int, deadline_s: float, on_change: Callable[[Room], None]) -> None:
        """Bounds and deadline of the service; what was measured stays."""
        self._most = most
        self._patience_s = deadline_s * _OF_DEADLINE
        self._on_change = on_change
        self._bound = 0
        self._decide()

    def ran(self, requests: int, began: float, ended: float) -> None:
        """A run answered that many. Runs that overlap count for the time since the one before."""
        busy = ended - max(self._last, began)
        self._last = ended
        each = max(0.0, busy) / requests
        known = self._each_s
        if known:
            self._odd = self._odd + 1 if each > _MOST_TIMES * known else 0
            believed = each if self._odd >= _BELIEVED_AT else min(each, _MOST_TIMES * known)
            each = known + _NEW_SHARE * (believed - known)
        self._each_s = each
        self._decide()

    @property
    def wait_s(self) -> float:
        """What the last of a full room waits, by what was measured."""
        return self._bound * self._each_s

    def _decide(self) -> None:
        if self._on_change is None:
            return
        bound = self._most
        if self._each_s * bound > self._patience_s:
            bound = max(_FEWEST, int(self._patience_s / self._each_s))
        if abs(bound - self._bound) > _NOTABLE * self._bound:
            self._bound = min(bound, self._most)
            self._on_change(Room.of(self._bound))


def read_urgency(fields: Mapping[bytes, bytes] | None) -> int:
    """The `u` parameter of the header `Priority`, 0 (most urgent) to 7; 3 without it, or when it cannot be read."""
    value = None if fields is None else fields.get(b"priority")
    if value is None:
        return _USUAL_URGENCY
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name == b"u" and len(number) == 1 and b"0" <= number <= b"7":
            return int(number)
    return _USUAL_URGENCY
