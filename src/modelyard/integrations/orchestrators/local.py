"""Isolated model workers on this machine, kept running by the supervisor, or by the agents of several nodes.

Whoever keeps workers listens on a Unix socket of its own; every order is one JSON line, one line comes back, and the
connection ends. It keeps what it was told: a worker that crashes is started again without another order. Stopping can
take as long as the grace; the order is given and the outcome is seen in the next listing.

A node that does not answer keeps its replicas in the listing, as lost after a while. A replica that is ordered on
another node than where it runs moves: both run until the new one is ready, and the old one a little longer, so that
requests on their way to it are answered.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psutil

from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.documents import to_plain
from modelyard.ports.orchestrator import Abilities, Replica, ReplicaSpec, ReplicaState

_TIMEOUT_S: Final = 5.0
_LIST_TIMEOUT_S: Final = 1.0
_STOP_WAIT_S: Final = 0.5
_LOST_AFTER_S: Final = 5.0
_LINGER_S: Final = 10.0
_MAX_ANSWER_BYTES: Final = 1 << 22
_STATES: Final[Mapping[str, ReplicaState]] = {
    "starting": ReplicaState.STARTING,
    "running": ReplicaState.READY,
    "backoff": ReplicaState.STARTING,
    "stopping": ReplicaState.STOPPING,
    "stopped": ReplicaState.STOPPING,
    "refused": ReplicaState.FAILED,
}


@dataclass(slots=True)
class _Node:
    """One keeper of workers. `silent_since` is None while it answers."""

    name: str
    keeper: Path
    known: dict[str, Replica] = field(default_factory=dict)
    silent_since: float | None = None
    stopping: set[str] = field(default_factory=set)


class LocalOrchestrator:
    """Gives orders to the keepers of `nodes` (name → socket). Threads may call at the same time."""

    name = "local"

    def __init__(self, nodes: Mapping[str, Path]) -> None:
        self._nodes = {name: _Node(name, keeper) for name, keeper in nodes.items()}
        self._first = next(iter(self._nodes))
        self._wanted_on: dict[str, str] = {}
        self._lingers: dict[tuple[str, str], float] = {}
        self._askers = ThreadPoolExecutor(max_workers=len(self._nodes), thread_name_prefix="nodes")

    def abilities(self) -> Abilities:
        """Processes of one user on one machine: on Linux, memory is bounded, and whole processors are."""
        on_linux = sys.platform == "linux"
        return Abilities(
            limits_memory=on_linux,
            limits_cpu=on_linux,
            divides_cpus=False,
            many_nodes=len(self._nodes) > 1,
            gives_secrets=True,
            devices=("cpu", *_accelerators()),
            most_cpus=float(os.cpu_count() or 1),
            most_memory_bytes=psutil.virtual_memory().total // len(self._nodes),
        )

    def start(self, replica: ReplicaSpec) -> None:
        """Have it kept running on its node; `Unavailable` when that does not answer."""
        node = self._nodes.get(replica.node or self._first)
        if node is None:
            raise Unavailable(f"there is no node {replica.node} here", hint="modelyard nodes lists them")
        node.stopping.discard(replica.id)
        self._wanted_on[replica.id] = node.name
        _order(node.keeper, {"op": "start", "replica": to_plain(replica)}, timeout_s=_TIMEOUT_S)

    def stop(self, replica_id: str, *, grace_s: float) -> None:
        """Have it drained and ended wherever it runs; an id that nobody knows is stopped already."""
        self._wanted_on.pop(replica_id, None)
        holders = [node for node in self._nodes.values() if replica_id in node.known] or list(self._nodes.values())
        for node in holders:
            try:
                self._stop_on(node, replica_id, grace_s=grace_s)
            except Unavailable:
                if len(self._nodes) == 1:
                    raise  # of several nodes, one that is gone has taken its workers with it

    def replicas(self) -> Sequence[Replica]:
        """All isolated workers of this platform; `Unavailable` when no keeper answers."""
        list(self._askers.map(self._look, self._nodes.values()))
        if all(node.silent_since is not None for node in self._nodes.values()):
            raise Unavailable(
                "the supervisor of the isolated workers does not answer",
                hint="workers that run go on running; start the platform with `modelyard up` to start others",
            )
        ids = dict.fromkeys(replica for node in self._nodes.values() for replica in node.known)
        found = [self._one(name) for name in ids]
        self._end_lingering()
        return found

    def _look(self, node: _Node) -> None:
        """Ask one keeper what it keeps; remember it when it does not answer."""
        try:
            children = _order(node.keeper, {"op": "list"}, timeout_s=_LIST_TIMEOUT_S).get("children", [])
        except (Unavailable, TimeoutError):
            node.silent_since = node.silent_since or monotonic()
            if monotonic() - node.silent_since >= _LOST_AFTER_S:
                why = f"node {node.name} does not answer"
                node.known = {
                    name: replace(replica, state=ReplicaState.LOST, reason=why) for name, replica in node.known.items()
                }
            return
        node.silent_since = None
        node.known = {str(child["replica_id"]): _replica(child, node) for child in children if child.get("replica_id")}
        node.stopping &= node.known.keys()

    def _one(self, replica_id: str) -> Replica:
        """What to say of a replica that one node runs, or two while it moves."""
        held = {name: node.known[replica_id] for name, node in self._nodes.items() if replica_id in node.known}
        best = min(held, key=lambda name: (held[name].state is not ReplicaState.READY, name))
        wanted = self._wanted_on.setdefault(replica_id, best)
        if wanted in held and (held[wanted].state is ReplicaState.READY or len(held) == 1):
            for other in held.keys() - {wanted}:
                self._lingers.setdefault((replica_id, other), monotonic() + _LINGER_S)
            return held[wanted]
        others = {name: replica for name, replica in held.items() if name != wanted}
        old = min(others, key=lambda name: (others[name].state is not ReplicaState.READY, name))
        return replace(others[old], moving_to=wanted)

    def _end_lingering(self) -> None:
        for (replica_id, name), until in list(self._lingers.items()):
            node = self._nodes[name]
            if self._wanted_on.get(replica_id) == name or replica_id not in node.known:
                del self._lingers[replica_id, name]
            elif node.silent_since is None and monotonic() >= until:
                self._stop_on(node, replica_id, grace_s=_LINGER_S)

    @staticmethod
    def _stop_on(node: _Node, replica_id: str, *, grace_s: float) -> None:
        node.stopping.add(replica_id)
        with suppress(TimeoutError):  # the keeper has the order and needs the grace; the next listing tells
            _order(node.keeper, {"op": "stop", "replica_id": replica_id, "grace_s": grace_s}, timeout_s=_STOP_WAIT_S)


def _replica(child: Mapping[str, Any], node: _Node) -> Replica:
    name = str(child["replica_id"])
    state = _STATES.get(str(child["state"]), ReplicaState.STARTING)
    return Replica(
        id=name,
        state=ReplicaState.STOPPING if name in node.stopping else state,
        address=str(child.get("address") or ""),
        node=node.name,
        restarts=int(child.get("restarts") or 0),
        reason=str(child.get("reason") or ""),
    )


def _order(keeper: Path, order: Mapping[str, object], *, timeout_s: float) -> dict[str, Any]:
    try:
        line = _exchange(keeper, json.dumps(order).encode() + b"\n", timeout_s=timeout_s)
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


def _accelerators() -> list[str]:
    """Devices that this machine's kernel shows; whether a model's runtime can use one is for the runtime to say."""
    cards = sorted(int(path.name.removeprefix("nvidia")) for path in Path("/dev").glob("nvidia[0-9]*"))
    found = ["cuda", *(f"cuda:{number}" for number in cards)] if cards else []
    found += ["gpu"] if any(Path("/dev/dri").glob("renderD*")) else []
    return found + (["npu"] if any(Path("/dev/accel").glob("accel*")) else [])
