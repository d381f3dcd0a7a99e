"""Where a replica runs, and why there. Pure.

A node that is open and answers, has the room that is asked for, and holds the fewest workers of the same service, so
that losing one node takes as little as possible of it; then the one with the fewest workers in all; then by name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelyard.domain.errors.platform import Unavailable
from modelyard.domain.nodes import NodeWish
from modelyard.ports.orchestrator import Replica, ReplicaSpec, ReplicaState


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node as a place for workers. `memory_bytes` is what is left of what it gives; None is not bounded."""

    name: str
    wish: NodeWish = NodeWish.OPEN
    answers: bool = True
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The node that was chosen, and why, in words."""

    node: str
    reason: str


def place(replica: ReplicaSpec, places: Sequence[Place], present: Iterable[Replica]) -> Placement:
    """The node for `replica`, given what runs where.

    Raises:
        Unavailable: no node can take it; the text says why each cannot.
    """
    refusals = {each.name: why for each in places if (why := _refusal(replica, each))}
    able = [each.name for each in places if each.name not in refusals]
    if not able:
        told = "; ".join(f"{name} {why}" for name, why in refusals.items()) or "there is none"
        raise Unavailable(f"no node can take {replica.id}: {told}", hint="modelyard nodes shows them")
    here = [(each.moving_to or each.node, each.id) for each in present if each.state is not ReplicaState.LOST]
    prefix = replica.id.rsplit(".", 2)[0] + "."
    same = {name: sum(node == name and other.startswith(prefix) for node, other in here) for name in able}
    load = {name: sum(node == name for node, _ in here) for name in able}
    chosen = min(able, key=lambda name: (same[name], load[name], name))
    reason = (
        f"{same[chosen]} workers of this service and {load[chosen]} in all run there, the fewest of {len(able)} nodes"
    )
    return Placement(node=chosen, reason=reason if len(able) > 1 else "the only node that can take it")


def _refusal(replica: ReplicaSpec, place_: Place) -> str:
    """Why `place_` cannot take the replica; empty when it can."""
    if not place_.answers:
        return "does not answer"
    if place_.wish is not NodeWish.OPEN:
        return f"is {place_.wish}"
    needed, left = replica.memory_bytes, place_.memory_bytes
    if needed is not None and left is not None and needed > left:
        return f"has {left >> 20} MiB left of the {needed >> 20} MiB that it needs"
    return ""
