"""What the model servers of every control plane said, known to all control planes that share the records.

Servers report to the control plane beside them. The one that leads decides for all of them, so each writes what its own
servers said into the records, and reads what the others wrote. Alone, it only looks now and then whether it still is.
"""

import logging
import threading
from typing import Final

from sqlalchemy import delete, insert, select

from modelyard.control.nodes.board import Board
from modelyard.control.nodes.tables import boards
from modelyard.control.records import Database
from modelyard.domain.errors import ModelyardError
from modelyard.domain.routing import ServerReport
from modelyard.foundation.clock import Clock
from modelyard.foundation.documents import from_json, to_json

_LOG: Final = logging.getLogger(__name__)
_LEAST_S: Final = 0.25
_EVERY_S: Final = 2.0
_ALONE_EVERY_S: Final = 5.0
_OTHERS_S: Final = 15.0
TOPIC: Final = "boards"


class BoardExchange:
    """One thread. `start` once; `stop` takes this control plane's servers off the others' boards."""

    def __init__(self, database: Database, board: Board, *, clock: Clock) -> None:
        self._database = database
        self._board = board
        self._clock = clock
        self._seen: dict[str, int] = {}
        self._others_at = float("-inf")
        self._written_at = float("-inf")
        self._written_names: frozenset[str] = frozenset()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board-exchange", daemon=True)
        board.listen(self._woken.set)
        self._leave = database.subscribe(TOPIC, self._woken.set)

    def start(self) -> None:
        """Begin to exchange."""
        self._thread.start()

    def stop(self) -> None:
        """End. Idempotent."""
        self._leave()
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def turn(self) -> None:
        """Read what is new of the others, and write what is of ours when somebody reads it or a server came or went."""
        now = self._clock.monotonic()
        with self._database.read() as tx:
            rows = tx.execute(select(boards).where(boards.c.plane != self._board.plane)).all()
        for row in rows:
            if self._seen.get(row.plane) == row.number:
                continue
            if row.plane in self._seen:
                self._others_at = now
            self._seen[row.plane] = row.number
            for report in from_json(row.reports, tuple[ServerReport, ...]):
                self._board.take(report)
        is_read = now - self._others_at < _OTHERS_S
        own = self._board.own()
        names = frozenset(report.server for report in own)
        if names != self._written_names or now - self._written_at >= (_LEAST_S if is_read else _ALONE_EVERY_S):
            self._write(own)
            self._written_at, self._written_names = now, names

    def _write(self, own: tuple[ServerReport, ...]) -> None:
        with self._database.begin() as tx:
            mine = boards.c.plane == self._board.plane
            number = tx.scalar(select(boards.c.number).where(mine)) or 0
            tx.execute(delete(boards).where(mine))
            tx.execute(
                insert(boards).values(plane=self._board.plane, number=number + 1, at=tx.now, reports=to_json(own))
            )
            if self._board.news_of_own():
                tx.wake(TOPIC)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                self.turn()
            except ModelyardError as error:
                _LOG.warning("what servers say cannot be exchanged now: %s", error)
            except Exception:  # noqa: BLE001  (the loop: it goes on whatever one turn met)
                _LOG.exception("what servers say could not be exchanged")
            self._stopped.wait(_LEAST_S)
            self._woken.wait(_EVERY_S)
        try:
            with self._database.begin() as tx:
                tx.execute(delete(boards).where(boards.c.plane == self._board.plane))
        except ModelyardError:
            _LOG.info("the servers of this control plane stay on the others' boards until they fall silent")
