"""Seal new entries into the chain, in the order of their commits, and anchor the head of it every minute.

Where several control planes share the records, the one that leads does it.

Runs beside the requests in a thread of its own, so that no request waits for the chain. What a crash leaves unsealed is
sealed at the next start. It seals what is committed and nothing else, so an entry has its place within a second.
"""

import logging
import threading
from pathlib import Path
from typing import Final

from sqlalchemy import select, update

from modelyard.control.history.anchors import Anchor, read_anchors, write_anchor
from modelyard.control.history.chain import GENESIS, seal_of
from modelyard.control.history.entries import TOPIC
from modelyard.control.history.tables import history
from modelyard.control.records import Database, Transaction
from modelyard.foundation.settings import HistorySettings

_BATCH: Final = 500
_LOG: Final = logging.getLogger(__name__)


class Sequencer:
    """One a platform. `anchors` is the anchor file, `key` the chain's key."""

    def __init__(self, database: Database, *, key: bytes, anchors: Path, settings: HistorySettings) -> None:
        self._database = database
        self._key = key
        self._anchors = anchors
        self._settings = settings
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._anchored_at = float("-inf")

    def seal(self) -> int:
        """Seal what is not sealed yet; how many entries that were. One unit of work a batch."""
        sealed = 0
        while True:
            with self._database.read() as tx:
                waiting = tx.scalar(select(history.c.number).where(history.c.sequence.is_(None)).limit(1))
            if waiting is None:
                return sealed
            with self._database.begin() as tx:
                sealed += self._seal_batch(tx)

    def anchor(self) -> Anchor | None:
        """Write the head of the chain to the anchor file unless it stands there already."""
        with self._database.read() as tx:
            sequence, seal = _head(tx)
        written = read_anchors(self._anchors, key=self._key)
        if sequence == 0 or (written and written[-1].sequence >= sequence):
            return None
        anchor = Anchor(sequence=sequence, seal=seal, at=self._database.clock.now().isoformat())
        write_anchor(self._anchors, anchor, key=self._key)
        return anchor

    def start(self) -> None:
        """Begin sealing in the background."""
        self._unsubscribe = self._database.subscribe(TOPIC, self._wake.set)
        self._thread = threading.Thread(target=self._run, name="history-sequencer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Seal and anchor what is there, then end."""
        if self._thread is None:
            return
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=30)
        self._unsubscribe()
        self._thread = None

    def _run(self) -> None:
        pause = threading.Event()
        while not self._stopping:
            self._turn()
            self._wake.wait(timeout=1.0)
            self._wake.clear()
            if not self._stopping:
                pause.wait(self._settings.seal_every_s)  # gather what comes together into one write
        self._anchored_at = float("-inf")
        self._turn()

    def _turn(self) -> None:
        try:
            with self._database.leading() as leads:
                if not leads:
                    return
                self.seal()
            now = self._database.clock.monotonic()
            if now - self._anchored_at >= self._settings.anchor_every_s:
                self.anchor()
                self._anchored_at = now
        except Exception:  # noqa: BLE001  (the loop: it goes on sealing whatever one turn met)
            _LOG.exception("history could not be sealed or anchored; trying again")

    def _seal_batch(self, tx: Transaction) -> int:
        sequence, previous = _head(tx)
        rows = tx.execute(
            select(history).where(history.c.sequence.is_(None)).order_by(history.c.number).limit(_BATCH)
        ).mappings()
        count = 0
        for row in map(dict, rows.all()):
            sequence += 1
            seal = seal_of(row, sequence=sequence, previous=previous, key=self._key)
            tx.execute(
                update(history)
                .where(history.c.number == row["number"])
                .values(sequence=sequence, previous=previous, seal=seal)
            )
            previous = seal
            count += 1
        return count


def _head(tx: Transaction) -> tuple[int, str]:
    row = tx.execute(
        select(history.c.sequence, history.c.seal)
        .where(history.c.sequence.is_not(None))
        .order_by(history.c.sequence.desc())
        .limit(1)
    ).first()
    return (0, GENESIS) if row is None else (row.sequence, row.seal)
