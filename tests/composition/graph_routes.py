"""Routes to graphs."""

from pathlib import Path
from typing import Any

from modelyard.domain.graph import Graph, GraphPart, Node, NodeKind, Step, graph_digest
from modelyard.domain.routing import Backend, ServiceRoute


def ask(service: str, **more: Any) -> Step:
    return Step(name=more.pop("name", service), service=service, **more)


def node(kind: str, *steps: Step, **more: Any) -> Node:
    return Node(kind=NodeKind(kind), steps=steps, **more)


def part(reference: str, package: Path, version: str = "1") -> GraphPart:
    return GraphPart(
        reference=reference, model=package.name, version=version, digest=f"sha256:{package.name}", package=str(package)
    )


def graph(name: str, *parts: GraphPart, route: dict[str, Any] | None = None, **nodes: Node) -> ServiceRoute:
    """A service that is a graph of `nodes`."""
    made = Graph(nodes=nodes)
    digest = graph_digest(made, parts)
    backend = Backend(
        model=name, version=digest[7:19], digest=digest, package="", revision=7, graph=made, parts=tuple(parts)
    )
    return ServiceRoute(name=name, revision=7, backends=(backend,), **(route or {}))
