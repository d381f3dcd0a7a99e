"""A graph as people write it, in a manifest and in a body, both ways. The names are KServe's (InferenceGraph)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from modelyard.domain.graph import Combine, Comparison, Condition, Graph, Node, NodeKind, Scalar, Step
from modelyard.domain.names import NAME_PATTERN

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", max_length=63)]
Tensor = Annotated[str, Field(min_length=1, max_length=200)]
_REFERENCE = rf"^{NAME_PATTERN}(?:[:@]{NAME_PATTERN})?$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ConditionBody(_Strict):
    """When a switch takes a step."""

    input: Tensor | None = Field(default=None, description="A tensor of the request, or of a step before; by row.")
    element: int = Field(default=0, ge=0, le=2**31, description="Which value of a row.")
    parameter: Tensor | None = Field(default=None, description="A parameter of the request.")
    op: Comparison = Comparison.EQ
    value: Scalar | list[Scalar] = True


class StepBody(_Strict):
    """What is asked: exactly one of service, model and node."""

    name: Name | None = Field(default=None, description="Default: what is asked.")
    service: Name | None = Field(default=None, description="A service of the project.")
    model: str | None = Field(default=None, pattern=_REFERENCE, max_length=127, description="A version of the library.")
    node: Name | None = Field(default=None, description="Another node.")
    inputs: dict[Tensor, Tensor] = Field(default={}, max_length=256, description="Its input: the tensor it takes.")
    outputs: dict[Tensor, Tensor] = Field(default={}, max_length=256, description="Its output: the name it goes on as.")
    weight: int = Field(default=1, ge=-1_000_000, le=1_000_000)
    when: ConditionBody | None = None


class NodeBody(_Strict):
    """A node and its steps."""

    type: NodeKind
    steps: list[StepBody] = Field(max_length=64)
    combine: Combine = Field(default=Combine.AVERAGE, description="How an ensemble's answers become one.")
    sticky: Tensor | None = Field(default=None, description="The request parameter that decides for a splitter.")


class GraphBody(_Strict):
    """Other services and versions as one service."""

    nodes: dict[Name, NodeBody] = Field(max_length=64, description="By name; `root` is asked first.")

    def value(self) -> Graph:
        """The same in the terms of the domain."""
        return Graph(nodes={name: _node(node) for name, node in self.nodes.items()})


def graph_fields(graph: Graph) -> dict[str, Any]:
    """The manifest's form of `graph`; what has its default is left out."""
    return {"nodes": {name: _node_fields(node) for name, node in graph.nodes.items()}}


def _node(body: NodeBody) -> Node:
    steps = tuple(_step(step) for step in body.steps)
    return Node(kind=body.type, steps=steps, combine=body.combine, sticky=body.sticky)


def _step(body: StepBody) -> Step:
    when = body.when
    value = None if when is None else tuple(when.value) if isinstance(when.value, list) else when.value
    return Step(
        name=body.name or body.service or body.node or (body.model or "").partition("@")[0].partition(":")[0],
        service=body.service,
        model=body.model,
        node=body.node,
        inputs=dict(body.inputs),
        outputs=dict(body.outputs),
        weight=body.weight,
        when=None
        if when is None or value is None
        else Condition(input=when.input, element=when.element, parameter=when.parameter, op=when.op, value=value),
    )


def _node_fields(node: Node) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": node.kind.value, "steps": [_step_fields(step) for step in node.steps]}
    if node.combine is not Combine.AVERAGE:
        fields["combine"] = node.combine.value
    if node.sticky is not None:
        fields["sticky"] = node.sticky
    return fields


def _step_fields(step: Step) -> dict[str, Any]:
    usual = _step(StepBody(service=step.service, model=step.model, node=step.node))
    given: dict[str, Any] = {
        "name": None if step.name == usual.name else step.name,
        "service": step.service,
        "model": step.model,
        "node": step.node,
        "inputs": dict(step.inputs) or None,
        "outputs": dict(step.outputs) or None,
        "weight": None if step.weight == usual.weight else step.weight,
        "when": None if step.when is None else _when_fields(step.when),
    }
    return {name: value for name, value in given.items() if value is not None}


def _when_fields(when: Condition) -> dict[str, Any]:
    fields: dict[str, Any] = {"value": list(when.value) if isinstance(when.value, tuple) else when.value}
    if when.input is not None:
        fields |= {"input": when.input} | ({"element": when.element} if when.element else {})
    if when.parameter is not None:
        fields["parameter"] = when.parameter
    if when.op is not Comparison.EQ:
        fields["op"] = when.op.value
    return fields
