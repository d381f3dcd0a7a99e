"""Which backend answers: smooth weighted round robin, so that every window of requests has the shares asked for.

(nginx, "upstream: smooth weighted round-robin balancing", 2012: each turn every candidate gains its weight, the leader
is chosen and gives the sum of the weights back.)
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Split(Generic[T]):
    """Choices with weights; those of weight 0 are never chosen."""

    __slots__ = ("_credit", "_items", "_total", "_weights", "only")

    def __init__(self, choices: Sequence[tuple[T, int]]) -> None:
        chosen = [(item, weight) for item, weight in choices if weight > 0]
        self._items = [item for item, _ in chosen]
        self._weights = [weight for _, weight in chosen]
        self._total = sum(self._weights)
        self._credit = [0] * len(chosen)
        self.only = self._items[0] if len(chosen) == 1 else None
        """The one that is always chosen, where there is just one."""

    @property
    def items(self) -> Sequence[T]:
        """What can be chosen."""
        return self._items

    def pick(self) -> T | None:
        """The next choice; None when there is nothing to choose."""
        if self.only is not None or not self._items:
            return self.only
        best, credit = 0, self._credit
        for index, weight in enumerate(self._weights):
            credit[index] += weight
            if credit[index] > credit[best]:
                best = index
        credit[best] -= self._total
        return self._items[best]
