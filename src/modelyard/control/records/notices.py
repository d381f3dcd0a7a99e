"""What other processes commit to the same PostgreSQL, heard at once: LISTEN and NOTIFY.

A notice goes with its commit. One that is lost, with a connection, costs a sweep: subscribers also look by themselves,
and everything rings once whenever the connection is there again.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

_CHANNEL: Final = "modelyard"
_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 1.0
_AGAIN_S: Final = 2.0
EVERYTHING: Final = "*"


def announce(tx: Session, name: str, topics: set[str]) -> None:
    """Tell the other processes, when `tx` is committed, that it touched `topics`; `name` is who says so."""
    said = text("SELECT pg_notify(:channel, :words)")
    tx.execute(said, {"channel": _CHANNEL, "words": " ".join((name, *sorted(topics)))})


class Notices:
    """One thread that hears notices of others and calls `heard` with their topics. `start` once."""

    def __init__(self, engine: Engine, *, heard: Callable[[set[str]], None], name: str) -> None:
        self._engine = engine
        self._heard = heard
        self._name = name
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End. Idempotent."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                pooled = self._engine.raw_connection()
                connection: Any = pooled.driver_connection
                pooled.detach()  # it says LISTEN: no unit of work is to get it
                with closing(connection):
                    self._listen(connection)
            except Exception as error:  # noqa: BLE001  (the loop: it listens again after whatever went wrong)
                if not self._stopped.is_set():
                    _LOG.warning(
                        "changes of other control planes are not heard at the moment: %s", type(error).__name__
                    )
                    self._stopped.wait(_AGAIN_S)

    def _listen(self, connection: Any) -> None:  # noqa: ANN401  (the driver's own object)
        connection.rollback()
        connection.autocommit = True
        connection.execute(f"LISTEN {_CHANNEL}")
        self._heard({EVERYTHING})
        while not self._stopped.is_set():
            for notice in connection.notifies(timeout=_LOOK_S):
                name, *topics = notice.payload.split(" ")
                if name != self._name:
                    self._heard(set(topics))
                if self._stopped.is_set():
                    return
