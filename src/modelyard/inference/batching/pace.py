"""How long a model's runs take, by batch size, and whether such a run may hold up the event loop.

Measured, never guessed, for each doubling of the number of rows. A size that was not seen yet is estimated from the
next smaller one in proportion: too much rather than too little, so that the first large batch does not stop the loop.
"""

from typing import Final

HEAVY_S: Final = 1.0e-3
LIGHT_S: Final = 0.5e-3
_NEW_SHARE: Final = 0.2
_LONGEST_STEP: Final = 4.0
_SIZES: Final = 40


class Pace:
    """Run times of one model. Runs of `HEAVY_S` or more leave the loop until they fall below `LIGHT_S`."""

    __slots__ = ("_heavy", "_seconds")

    def __init__(self, first_run_s: float) -> None:
        self._seconds = [0.0] * _SIZES
        self._heavy: list[bool | None] = [None] * _SIZES
        self.record(1, first_run_s)

    def is_heavy(self, rows: int) -> bool:
        """Whether a run of `rows` rows should leave the loop."""
        known = self._heavy[rows.bit_length()]
        return known if known is not None else self.expected_s(rows) >= HEAVY_S

    def expected_s(self, rows: int) -> float:
        """Seconds that a run of `rows` rows is expected to take."""
        size = rows.bit_length()
        for smaller in range(size, 0, -1):
            if self._seconds[smaller]:
                return self._seconds[smaller] * (1 if smaller == size else rows / (1 << (smaller - 1)))
        return self._seconds[1]

    def record(self, rows: int, seconds: float) -> None:
        """Take a measured run into account. One slow run (a busy machine) does not make a light model heavy."""
        size = rows.bit_length()
        before = self._seconds[size]
        after = before + _NEW_SHARE * (min(seconds, _LONGEST_STEP * before) - before) if before else seconds
        self._seconds[size] = after
        if after >= HEAVY_S:
            self._heavy[size] = True
        elif after < LIGHT_S or self._heavy[size] is None:
            self._heavy[size] = False
