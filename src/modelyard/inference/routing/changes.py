"""What callers ask of this server that is decided elsewhere: load, unload, and what is logged.

Under `up` it goes to the control plane, with the caller's own key. Under `serve` there is none: the table is a file
that all servers of the group follow, and whoever is asked writes the next one. Both answer
when the change is in effect.
"""

import asyncio
import fcntl
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Final, Protocol
from urllib.parse import quote as percent

import msgspec

from modelyard.domain.errors import platform
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.routing import LogSettings, RoutingTable
from modelyard.foundation.documents import to_json
from modelyard.foundation.local_http import ask
from modelyard.inference.routing.control_link import Take
from modelyard.inference.routing.services import Service
from modelyard.inference.routing.switchboard import Switchboard
from modelyard.inference.routing.table_checks import read_table

_OK: Final = 200
_LOOK_EVERY_S: Final = 0.05
_FOLLOW_EVERY_S: Final = 0.2
_PATIENCE_S: Final = 60.0
_BEARER: Final = b"bearer "
_KINDS: Final[Mapping[str, type[ModelyardError]]] = {
    kind.code: kind
    for kind in (
        platform.Conflict,
        platform.Forbidden,
        platform.InvalidRequest,
        platform.NotFound,
        platform.NotSupported,
        platform.Unauthenticated,
    )
}


class Changes(Protocol):
    """Carries out what callers ask. The caller's scope was checked here; whoever decides checks it again."""

    @abstractmethod
    async def set_loaded(self, authorization: bytes | None, service: Service, *, loaded: bool) -> None:
        """Load or unload a service on all servers; returns when that is done.

        Raises:
            Unavailable: it cannot be decided now, or the model cannot be loaded.
            ModelyardError: it is refused.
        """

    @abstractmethod
    async def set_logging(self, authorization: bytes | None, wish: LogSettings) -> None:
        """Set what all servers log. Raises as `set_loaded`."""


class ThroughControlPlane(Changes):
    """Asks the control plane on its Unix socket."""

    def __init__(self, socket: Path, board: Switchboard) -> None:
        self._socket = socket
        self._board = board

    async def set_loaded(self, authorization: bytes | None, service: Service, *, loaded: bool) -> None:
        """See `Changes`."""
        place = f"{percent(service.project, safe='')}/{percent(service.name, safe='')}"
        verb = "load" if loaded else "unload"
        await self._ask(f"/internal/v1/services/{place}/{verb}", {"key": _key(authorization)})

    async def set_logging(self, authorization: bytes | None, wish: LogSettings) -> None:
        """See `Changes`."""
        await self._ask("/internal/v1/logging", {"key": _key(authorization), "logging": asdict(wish)})

    async def _ask(self, path: str, document: Mapping[str, object]) -> None:
        body = msgspec.json.encode(document)
        try:
            status, answer = await ask(self._socket, "POST", path, body=body, patience_s=_PATIENCE_S + 5.0)
            found = msgspec.json.decode(answer, type=dict[str, object])
        except (OSError, TimeoutError, EOFError, msgspec.MsgspecError) as error:
            raise platform.Unavailable(
                "the control plane is away, and only it decides this", hint="predictions go on; try again later"
            ) from error
        if status != _OK:
            kind, detail, hint = (str(found.get(key, "")) for key in ("code", "detail", "hint"))
            raise _KINDS.get(kind, platform.Unavailable)(detail, hint=hint)
        await reach(self._board, int(str(found["table"])))


class TableFile(Changes):
    """A routing table in a file that all servers of a group follow, and that each of them may write anew."""

    def __init__(self, path: Path, board: Switchboard, group_reached: Callable[[int], bool]) -> None:
        self._path = path
        self._board = board
        self._group_reached = group_reached
        self._seen: tuple[int, int] | None = None

    def read(self) -> RoutingTable:
        """The table as it stands."""
        found = self._path.stat()
        self._seen = (found.st_mtime_ns, found.st_ino)
        return read_table(self._path.read_bytes())

    async def follow(self, take: Take) -> None:
        """Hand every new table to `take`, for ever."""
        while True:
            await asyncio.sleep(_FOLLOW_EVERY_S)
            self._look(take)

    async def set_loaded(self, authorization: bytes | None, service: Service, *, loaded: bool) -> None:
        """See `Changes`."""
        place = (service.project, service.name)

        def change(table: RoutingTable) -> RoutingTable:
            routes = [
                replace(route, loaded=loaded) if (route.project, route.name) == place else route
                for route in table.services
            ]
            return replace(table, services=tuple(routes))

        await self._change(change)
        if loaded and not service.split.items:
            reasons = [backend.reason for backend in service.backends.values() if backend.reason]
            raise platform.Unavailable(reasons[0] if reasons else "the model cannot be loaded")

    async def set_logging(self, authorization: bytes | None, wish: LogSettings) -> None:
        """See `Changes`."""
        await self._change(lambda table: replace(table, logging=wish))

    async def _change(self, change: Callable[[RoutingTable], RoutingTable]) -> None:
        revision = await asyncio.get_running_loop().run_in_executor(None, self._write, change)
        await reach(self._board, revision)
        until = monotonic() + _PATIENCE_S
        while not self._group_reached(revision):
            if monotonic() > until:
                raise platform.Unavailable("not every server of the group has taken it over", hint="look again later")
            await asyncio.sleep(_LOOK_EVERY_S)

    def _write(self, change: Callable[[RoutingTable], RoutingTable]) -> int:
        """Write the table that follows, whole; gives its revision, or that of the present one when nothing changes."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = read_table(self._path.read_bytes())
            wanted = change(present)
            if wanted == present:
                return present.revision
            wanted = replace(wanted, revision=present.revision + 1)
            partial = self._path.with_suffix(f".{os.getpid()}.partial")
            partial.write_bytes(to_json(wanted))
            partial.replace(self._path)
            return wanted.revision

    def _look(self, take: Take) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        if (found.st_mtime_ns, found.st_ino) != self._seen:
            take(self.read())


async def reach(board: Switchboard, revision: int) -> None:
    """Wait until this server has the table in effect.

    Raises:
        Unavailable: it has not in time.
    """
    until = monotonic() + _PATIENCE_S
    while board.acknowledged < revision:
        if monotonic() > until:
            raise platform.Unavailable("this server has not taken it over in time", hint="look again later")
        await asyncio.sleep(_LOOK_EVERY_S)


def _key(authorization: bytes | None) -> str | None:
    if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip().decode("latin-1")
