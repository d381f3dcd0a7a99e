"""The line to the control plane: HTTP/1.1 over its Unix socket, one request a connection.

Long-polls the routing table and sends reports. The control plane may be away at any time: the link then tries again
with growing, jittered pauses, and serving goes on as it was.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.domain.routing import RoutingTable, ServerReport
from modelyard.foundation.documents import to_json
from modelyard.foundation.local_http import ask
from modelyard.inference.routing.table_checks import read_table

WAIT_S: Final = 20.0
REPORT_EVERY_S: Final = 2.0
_PATIENCE_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_OK, _NOT_MODIFIED = 200, 304
_log = logging.getLogger(__name__)

Take = Callable[[RoutingTable], None]
Report = Callable[[], ServerReport]


class ControlLink:
    """One server's line. `changed` asks for a report at once."""

    def __init__(self, socket: Path, server: str) -> None:
        self._socket = socket
        self._server = server
        self._changed = asyncio.Event()
        self.refused = ""
        """Why the newest table that was offered is not in effect; empty when it is."""

    def changed(self) -> None:
        """Something worth reporting has happened."""
        self._changed.set()

    async def follow(self, take: Take, *, after: Callable[[], int]) -> None:
        """Hand every new table to `take`, for ever. `after` is the revision that is held."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                path = f"/internal/v1/table?after={after()}&wait_s={WAIT_S:g}"
                table = await self._next_table(path)
                if table is not None:
                    take(table)
                    self.refused = ""
                pause = _FIRST_PAUSE_S
                continue
            except InvalidRequest as error:
                self._refuse(error)
            except (OSError, TimeoutError, EOFError, Unavailable) as error:
                _log.debug("no routing table from the control plane", extra={"reason": str(error)})
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (spreads load, hides nothing)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _refuse(self, error: InvalidRequest) -> None:
        """Say once what is wrong with the table; the last good one stays in effect."""
        if error.detail != self.refused:
            self.refused = error.detail
            _log.error("a routing table is refused", extra={"reason": error.detail})
            self._changed.set()

    async def _next_table(self, path: str) -> RoutingTable | None:
        status, body = await ask(self._socket, "GET", path, patience_s=WAIT_S + _PATIENCE_S)
        if status not in (_OK, _NOT_MODIFIED):
            raise Unavailable(f"the control plane answered {status}")
        return read_table(body) if status == _OK else None

    async def report(self, current: Report) -> None:
        """Send what `current` gives when something changed, and every `REPORT_EVERY_S`, for ever."""
        path = f"/internal/v1/servers/{self._server}/report"
        while True:
            self._changed.clear()
            with suppress(OSError, TimeoutError, EOFError, Unavailable):
                await ask(self._socket, "POST", path, body=to_json(current()), patience_s=_PATIENCE_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REPORT_EVERY_S)
