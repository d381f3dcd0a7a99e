"""The nodes there are: what each says of itself, what people want of it, and which worker was put where and why."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, select

from modelyard.control.history import append
from modelyard.control.identity import Principal, missing, require_everywhere
from modelyard.control.nodes.placement import Place, Placement, place
from modelyard.control.nodes.tables import node_wishes
from modelyard.control.records import Database, Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.nodes import NodeReport, NodeWish
from modelyard.foundation.clock import Clock
from modelyard.ports.orchestrator import Replica, ReplicaSpec

TOPIC: Final = "nodes"
SILENT_AFTER_S: Final = 5.0
"""Agents report every second: one that missed five is not answering."""
MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. `report` is None for the supervisor's own, which needs no heartbeat, and before the first one."""

    name: str
    wish: NodeWish
    why: str
    answers: bool
    report: NodeReport | None
    age_s: float | None


class Roster:
    """Knows every node by name. `agents` are those that send heartbeats; the others are the supervisor's own."""

    def __init__(self, database: Database, *, names: Sequence[str], agents: Sequence[str], clock: Clock) -> None:
        self._database = database
        self._names = tuple(names)
        self._agents = frozenset(agents)
        self._clock = clock
        self._heard: dict[str, tuple[NodeReport, float]] = {}
        self._opened_at = clock.monotonic()
        self._placed: dict[str, Placement] = {}
        self._replicas: dict[str, Replica] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Every node."""
        return self._names

    def take(self, report: NodeReport) -> None:
        """An agent's heartbeat; one of an unknown node is dropped."""
        if report.node in self._agents:
            with self._lock:
                self._heard[report.node] = (report, self._clock.monotonic())

    def see(self, replicas: Iterable[Replica]) -> None:
        """What orchestrators list now, to be shown."""
        with self._lock:
            self._replicas = {replica.id: replica for replica in replicas}
            self._placed = {name: found for name, found in self._placed.items() if name in self._replicas}

    def nodes(self) -> list[Node]:
        """All nodes as they are now."""
        with self._database.read() as tx:
            wishes = {row.node: (NodeWish(row.wish), row.why) for row in tx.execute(select(node_wishes))}
        return [self._node(name, *wishes.get(name, (NodeWish.OPEN, ""))) for name in self._names]

    def replicas_on(self, node: str) -> list[tuple[Replica, str]]:
        """The workers of a node, each with why it is there."""
        with self._lock:
            return [
                (replica, self._placed[replica.id].reason if replica.id in self._placed else "it ran there already")
                for replica in self._replicas.values()
                if replica.node == node
            ]

    def leaving(self) -> Mapping[str, str]:
        """Nodes whose workers have to go elsewhere, with the reason."""
        found = {}
        for node in self.nodes():
            if not node.answers:
                found[node.name] = f"node {node.name} does not answer"
            elif node.wish is NodeWish.DRAINING:
                found[node.name] = f"node {node.name} is being drained"
        return found

    def place(self, replica: ReplicaSpec, present: Iterable[Replica]) -> Placement:
        """Choose a node for `replica` and remember why; raises as `placement.place` does."""
        present = list(present)
        places = [
            Place(name=node.name, wish=node.wish, answers=node.answers, memory_bytes=_left(node))
            for node in self.nodes()
        ]
        chosen = place(replica, places, present)
        with self._lock:
            self._placed[replica.id] = chosen
        return chosen

    def wish(self, who: Principal, node: str, wish: NodeWish, *, why: str) -> Node:
        """Cordon a node, drain it, or open it again, with its history entry; the same wish twice is one.

        Raises:
            NotFound, Forbidden: no such node, or not for the caller to say.
            InvalidRequest: no other node could take what the last open one holds.
        """
        require_everywhere(who, Verb.ADMIN)
        if node not in self._names:
            raise missing(f"node {quote(node)}")
        known = {each.name: each for each in self.nodes()}
        others = [each for name, each in known.items() if name != node and each.wish is NodeWish.OPEN]
        if wish is NodeWish.DRAINING and not others:
            raise InvalidRequest(
                f"{quote(node)} is the only open node: its workers have nowhere to go",
                hint="open another node first, or cordon this one to keep new workers away",
            )
        if known[node].wish is not wish:
            with self._database.begin() as tx:
                self._write(tx, who, node, wish, why=why[:MAX_REASON])
        return next(each for each in self.nodes() if each.name == node)

    def _write(self, tx: Transaction, who: Principal, node: str, wish: NodeWish, *, why: str) -> None:
        tx.execute(delete(node_wishes).where(node_wishes.c.node == node))
        if wish is not NodeWish.OPEN:
            tx.execute(insert(node_wishes).values(node=node, wish=wish.value, why=why, by=who.name, at=tx.now))
        append(
            tx,
            actor=who.actor,
            action=f"node.{'opened' if wish is NodeWish.OPEN else wish.value}",
            subject=f"node/{node}",
            project=None,
            payload={"node": node, "wish": wish.value, "why": why},
        )
        tx.wake(TOPIC)

    def _node(self, name: str, wish: NodeWish, why: str) -> Node:
        with self._lock:
            heard = self._heard.get(name)
        now = self._clock.monotonic()
        if name not in self._agents:
            return Node(name=name, wish=wish, why=why, answers=True, report=None, age_s=None)
        age = now - (self._opened_at if heard is None else heard[1])
        report = None if heard is None else heard[0]
        answers = age < SILENT_AFTER_S
        return Node(name=name, wish=wish, why=why, answers=answers, report=report, age_s=round(age, 3))


def _left(node: Node) -> int | None:
    return None if node.report is None else node.report.memory_available_bytes
