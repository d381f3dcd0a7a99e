"""The supervisor's own socket: the control plane's local orchestrator starts and stops isolated workers through it.

One JSON line in, one JSON line out, then the connection ends. The socket is private to the user.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.foundation.documents import from_plain
from modelyard.foundation.supervision import Child, ChildSpec, ChildState, Supervisor
from modelyard.ports.orchestrator import ReplicaSpec

_MAX_LINE_BYTES: Final = 65536
_DEADLINE_S: Final = 60.0
WORKER_MODULE: Final = "modelyard.processes.model_worker"

MakeSpec = Callable[[ReplicaSpec], ChildSpec]


class Orders:
    """Listens on a Unix socket and turns orders into children of the supervisor."""

    def __init__(self, supervisor: Supervisor, *, make_worker: MakeSpec) -> None:
        self._supervisor = supervisor
        self._make_worker = make_worker
        self._server: asyncio.Server | None = None
        self._known: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "list": self._list,
            "start": self._start,
            "stop": self._stop,
        }

    async def open(self, path: Path) -> None:
        """Begin to listen."""
        path.unlink(missing_ok=True)  # noqa: ASYNC240  (one system call on a local directory)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=_MAX_LINE_BYTES)
        path.chmod(0o600)  # noqa: ASYNC240

    async def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # the asker is gone or sent no line: it asks again
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            order = json.loads(line)
            act = self._known.get(order.get("op"))
            if act is None:
                raise InvalidRequest(f"unknown order; known: {', '.join(self._known)}")
            return {"ok": True, **await act(order)}
        except ModelyardError as error:
            return {"ok": False, "error": error.detail, "hint": error.hint}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"ok": False, "error": f"the order cannot be read: {error}", "hint": ""}

    async def _list(self, order: Mapping[str, Any]) -> dict[str, Any]:
        del order
        return {"children": [_describe(child) for child in self._supervisor.children]}

    async def _start(self, order: Mapping[str, Any]) -> dict[str, Any]:
        spec = self._make_worker(from_plain(order["replica"], ReplicaSpec))
        self._supervisor.start(spec)
        return {"address": spec.facts["address"]}

    async def _stop(self, order: Mapping[str, Any]) -> dict[str, Any]:
        wanted = order["replica_id"]
        for child in self._supervisor.children:
            if child.spec.facts.get("replica_id") == wanted:
                await self._supervisor.stop(child.spec.name, grace_s=min(float(order.get("grace_s", 5.0)), 30.0))
        return {}


def _describe(child: Child) -> dict[str, Any]:
    return {
        "name": child.spec.name,
        "pid": child.pid,
        "state": ChildState.RUNNING if child.ready.is_set() else child.state,
        "restarts": child.restarts,
        "reason": child.reason,
        "replica_id": child.spec.facts.get("replica_id"),
        "address": child.spec.facts.get("address"),
    }
