"""What people ask of model servers that is the control plane's to decide: load, unload, what is logged.

A model server hands the caller's own credentials on, and they are checked here as on the control listener: it is
trusted to hand over requests, not to say who made them.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from modelyard.control.deployments import Deployments, look, set_loaded
from modelyard.control.identity import LOCAL, Authenticator, Principal
from modelyard.control.nodes import Board
from modelyard.control.traffic.server_logs import change_log_settings
from modelyard.domain.errors.platform import Unavailable
from modelyard.domain.routing import LogSettings, ServerReport

_SOURCE: Final = "model-server"
_LOOK_EVERY_S: Final = 0.05


class ServingChanges:
    """Carries them out, and waits until all servers that report did. `authenticator` None: no key is asked for."""

    def __init__(
        self,
        deployments: Deployments,
        board: Board,
        authenticator: Callable[[], Authenticator] | None,
        *,
        patience_s: float = 60.0,
    ) -> None:
        self._deployments = deployments
        self._board = board
        self._authenticator = authenticator
        self._patience_s = patience_s

    async def set_loaded(self, key: str | None, project: str, name: str, *, loaded: bool) -> int:
        """Load or unload a service; gives the table of the change, once every server has it.

        Raises:
            ModelyardError: it is refused, or a server cannot load it, or not all of them did in time.
        """
        who = await self._who(key)
        table = await asyncio.to_thread(set_loaded, self._deployments, who, project, name, loaded=loaded)
        until = monotonic() + self._patience_s
        while monotonic() < until:
            reached = await asyncio.to_thread(
                look, self._deployments, project, name, servers=self._servers(), table=table
            )
            if reached.done:
                return table
            if reached.failed:
                raise Unavailable(reached.failed, hint="the library has the report of this version")
            await asyncio.sleep(_LOOK_EVERY_S)
        raise Unavailable(
            f"not every model server has taken it over after {self._patience_s:g} s", hint="look again later"
        )

    async def set_logging(self, key: str | None, wish: LogSettings) -> int:
        """Set what model servers log; gives the table of the change.

        Raises:
            ModelyardError: it is refused.
        """
        who = await self._who(key)
        deployments = self._deployments
        return await asyncio.to_thread(change_log_settings, deployments.database, deployments.publish, who, wish)

    async def _who(self, key: str | None) -> Principal:
        if self._authenticator is None:
            return LOCAL
        return await asyncio.to_thread(self._authenticator().principal, key, source=_SOURCE)

    def _servers(self) -> tuple[ServerReport, ...]:
        return tuple(self._board.alive()) if self._board.is_complete else ()
