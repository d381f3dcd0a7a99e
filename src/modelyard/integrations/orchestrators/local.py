"""Isolated model workers on this machine, kept running by the supervisor.

The supervisor listens on a Unix socket of its own; every order is one JSON line, one line comes back, and the
connection ends. It keeps what it was told: a worker that crashes is started again without another order. Stopping can
take as long as the grace; the order is given and the outcome is seen in the next listing.
"""

import json
import platform
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.documents import to_plain
from modelyard.ports.orchestrator import Abilities, Replica, ReplicaSpec, ReplicaState

_TIMEOUT_S: Final = 5.0
_STOP_WAIT_S: Final = 0.5
_MAX_ANSWER_BYTES: Final = 1 << 22
_STATES: Final[Mapping[str, ReplicaState]] = {
    "starting": ReplicaState.STARTING,
    "running": ReplicaState.READY,
    "backoff": ReplicaState.STARTING,
    "stopping": ReplicaState.STOPPING,
    "stopped": ReplicaState.STOPPING,
    "refused": ReplicaState.FAILED,
}


class LocalOrchestrator:
    """Gives orders to the supervisor behind `socket_path`. Threads may call at the same time."""

    name = "local"

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._node = platform.node() or "localhost"
        self._stopping: set[str] = set()

    def abilities(self) -> Abilities:
        """Processes of one user on one machine: memory and cores are not limited."""
        return Abilities(limits_memory=False, limits_cpu=False, many_nodes=False)

    def start(self, replica: ReplicaSpec) -> None:
        """Have it kept running; `Unavailable` when the supervisor does not answer."""
        self._stopping.discard(replica.id)
        self._order({"op": "start", "replica": to_plain(replica)}, timeout_s=_TIMEOUT_S)

    def stop(self, replica_id: str, *, grace_s: float) -> None:
        """Have it drained and ended; an id that nobody knows is stopped already."""
        self._stopping.add(replica_id)
        with suppress(TimeoutError):  # the supervisor has the order and needs the grace; the next listing tells
            self._order({"op": "stop", "replica_id": replica_id, "grace_s": grace_s}, timeout_s=_STOP_WAIT_S)

    def replicas(self) -> Sequence[Replica]:
        """All isolated workers of this platform."""
        children = self._order({"op": "list"}, timeout_s=_TIMEOUT_S).get("children", [])
        found = [self._replica(child) for child in children if child.get("replica_id")]
        self._stopping &= {replica.id for replica in found}
        return found

    def _replica(self, child: Mapping[str, Any]) -> Replica:
        name = str(child["replica_id"])
        state = _STATES.get(str(child["state"]), ReplicaState.STARTING)
        return Replica(
            id=name,
            state=ReplicaState.STOPPING if name in self._stopping else state,
            address=str(child.get("address") or ""),
            node=self._node,
            restarts=int(child.get("restarts") or 0),
            reason=str(child.get("reason") or ""),
        )

    def _order(self, order: Mapping[str, object], *, timeout_s: float) -> dict[str, Any]:
        try:
            line = _exchange(self._path, json.dumps(order).encode() + b"\n", timeout_s=timeout_s)
            answer = json.loads(line)
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise Unavailable(
                "the supervisor of the isolated workers does not answer",
                hint="workers that run go on running; start the platform with `modelyard up` to start others",
            ) from error
        if not isinstance(answer, dict) or not answer.get("ok"):
            text = answer.get("error") if isinstance(answer, dict) else "an answer that cannot be read"
            raise Unavailable(f"the supervisor refused: {text}", hint=str(answer.get("hint") or ""))
        return answer


def _exchange(path: Path, line: bytes, *, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(line)
        with connection.makefile("rb") as stream:
            return stream.readline(_MAX_ANSWER_BYTES)
