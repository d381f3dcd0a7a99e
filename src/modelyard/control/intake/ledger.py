"""Room that uploads under way have asked for, so that many at once never fill what one alone would fit."""

import threading
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Reservation:
    """So many bytes of a project, from `open` to `close`."""

    project: str
    size: int


class Ledger:
    """All reservations of this process. They end with it: what it received is swept at the next start."""

    def __init__(self) -> None:
        self._open: set[Reservation] = set()
        self._lock = threading.Lock()

    def open(self, project: str, size: int) -> Reservation:
        """Reserve `size` bytes."""
        reservation = Reservation(project, size)
        with self._lock:
            self._open.add(reservation)
        return reservation

    def close(self, reservation: Reservation) -> None:
        """Give the bytes back. Idempotent."""
        with self._lock:
            self._open.discard(reservation)

    def reserved(self, project: str) -> int:
        """Bytes that are reserved for a project now."""
        with self._lock:
            return sum(reservation.size for reservation in self._open if reservation.project == project)
