"""What a graph may be: every mistake is named with its place and what would be right; contracts follow from parts."""

from collections.abc import Mapping
from typing import Any

import pytest

from modelyard.domain.composing import compose
from modelyard.domain.contract import ModelContract
from modelyard.domain.graph import (
    Combine,
    Comparison,
    Condition,
    Graph,
    GraphPart,
    Node,
    NodeKind,
    Step,
    graph_digest,
    problems_of,
)
from modelyard.domain.tensors import DataType, TensorSpec


def spec(name: str, datatype: DataType = DataType.FP32, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape or (-1, 2))


def contract(
    inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, labels: tuple[str, ...] = (), size: int = 8
) -> ModelContract:
    def specs(given: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
        return tuple(spec(name, *(what if isinstance(what, tuple) else (what,))) for name, what in given.items())

    return ModelContract(inputs=specs(inputs), outputs=specs(outputs), labels=labels, max_batch_size=size)


SCALER = contract({"x": DataType.FP32}, {"scaled": DataType.FP32})
JUDGE = contract({"scaled": DataType.FP32}, {"label": (DataType.BYTES, -1), "p": DataType.FP32}, labels=("no", "yes"))
PARTS = {"scaler": SCALER, "judge": JUDGE, "judge2": JUDGE}


def of(step: Step) -> ModelContract | None:
    return PARTS.get(step.service or "")


def sequence(*steps: Step) -> Node:
    return Node(kind=NodeKind.SEQUENCE, steps=steps)


def ask(service: str, **more: Any) -> Step:
    return Step(name=service, service=service, **more)


GOOD = Graph(
    nodes={
        "root": sequence(ask("scaler"), Step(name="vote", node="vote")),
        "vote": Node(kind=NodeKind.ENSEMBLE, steps=(ask("judge"), ask("judge2")), combine=Combine.VOTE),
    }
)


def test_a_sound_graph_has_no_problem_and_the_contract_of_its_ends() -> None:
    assert list(problems_of(GOOD)) == []
    made = compose(GOOD, of)
    assert made.problems == []
    assert made.contract is not None
    assert [(one.name, one.datatype, one.shape) for one in made.contract.inputs] == [("x", DataType.FP32, (-1, 2))]
    assert [one.name for one in made.contract.outputs] == ["label"]
    assert made.contract.labels == ("no", "yes")
    assert made.contract.max_batch_size == 8


def node(kind: NodeKind, *steps: Step, **more: Any) -> Graph:
    return Graph(nodes={"root": Node(kind=kind, steps=steps, **more)})


@pytest.mark.parametrize(
    ("graph", "path"),
    [
        (Graph(nodes={"other": sequence(ask("a"))}), "nodes"),
        (Graph(nodes={"root": sequence()}), "nodes.root.steps"),
        (Graph(nodes={"root": sequence(Step(name="s"))}), "nodes.root.steps[0]"),
        (Graph(nodes={"root": sequence(Step(name="s", service="a", model="b"))}), "nodes.root.steps[0]"),
        (Graph(nodes={"root": sequence(Step(name="s", node="nowhere"))}), "nodes.root.steps[0].node"),
        (Graph(nodes={"root": sequence(ask("a"), ask("a"))}), "nodes.root.steps[1].name"),
        (Graph(nodes={"root": sequence(Step(name="s", node="root"))}), "nodes.root.steps[0].node"),
        (
            Graph(
                nodes={
                    "root": sequence(Step(name="s", node="b")),
                    "b": sequence(Step(name="s", node="c")),
                    "c": sequence(Step(name="s", node="b")),
                }
            ),
            "nodes.c.steps[0].node",
        ),
        (Graph(nodes={"root": sequence(ask("a")), "lost": sequence(ask("a"))}), "nodes.lost"),
        (node(NodeKind.SPLITTER, ask("a", weight=50), ask("b", weight=49)), "nodes.root.steps"),
        (node(NodeKind.SPLITTER, ask("a", weight=110), ask("b", weight=-10)), "nodes.root.steps"),
        (node(NodeKind.ENSEMBLE, ask("a", weight=0), ask("b")), "nodes.root.steps[0].weight"),
        (node(NodeKind.SWITCH, ask("a"), ask("b")), "nodes.root.steps"),
        (node(NodeKind.SWITCH, ask("a", when=Condition(parameter="p"))), "nodes.root.steps"),
        (node(NodeKind.SWITCH, ask("a", when=Condition()), ask("b")), "nodes.root.steps[0].when"),
        (
            node(NodeKind.SWITCH, ask("a", when=Condition(parameter="p", op=Comparison.IN, value=1)), ask("b")),
            "nodes.root.steps[0].when.value",
        ),
        (node(NodeKind.SEQUENCE, ask("a", when=Condition(parameter="p"))), "nodes.root.steps[0].when"),
        (node(NodeKind.SEQUENCE, ask("a"), sticky="user"), "nodes.root.sticky"),
    ],
)
def test_every_mistake_of_form_names_its_place_and_what_would_be_right(graph: Graph, path: str) -> None:
    found = list(problems_of(graph))
    assert [problem.path for problem in found] == [path]
    assert found[0].expected


def test_a_cycle_is_shown_whole() -> None:
    graph = Graph(nodes={"root": sequence(Step(name="s", node="b")), "b": sequence(Step(name="s", node="root"))})
    (found,) = list(problems_of(graph))
    assert found.what == "it leads back: root → b → root"


@pytest.mark.parametrize(
    ("graph", "path", "text"),
    [
        (node(NodeKind.SEQUENCE, ask("scaler"), ask("bytes")), "nodes.root.steps[1].inputs.scaled", "BYTES"),
        (node(NodeKind.SEQUENCE, ask("scaler"), ask("wide")), "nodes.root.steps[1].inputs.scaled", "shapes"),
        (node(NodeKind.SEQUENCE, ask("scaler", inputs={"y": "x"})), "nodes.root.steps[0].inputs.y", "no such input"),
        (node(NodeKind.SEQUENCE, ask("scaler", outputs={"y": "x"})), "nodes.root.steps[0].outputs.y", "no such output"),
        (node(NodeKind.ENSEMBLE, ask("scaler"), ask("judge")), "nodes.root.combine", "share no output"),
        (node(NodeKind.SWITCH, ask("scaler", when=Condition(input="x")), ask("judge")), "nodes.root.steps[1]", "gives"),
        (
            node(NodeKind.SWITCH, ask("judge", when=Condition(input="age")), ask("judge2")),
            "nodes.root.steps[0].when.input",
            "no 'age'",
        ),
        (
            node(NodeKind.SWITCH, ask("judge", when=Condition(input="scaled", element=2)), ask("judge2")),
            "nodes.root.steps[0].when.element",
            "2 values",
        ),
        (
            node(NodeKind.ENSEMBLE, ask("judge"), ask("judge2"), combine=Combine.MERGE),
            "nodes.root.steps",
            "two parts give",
        ),
        (node(NodeKind.ENSEMBLE, ask("scaler"), ask("othertype")), "nodes.root.steps[1].inputs.x", "two parts take"),
    ],
)
def test_parts_that_do_not_fit_are_named(graph: Graph, path: str, text: str) -> None:
    more = {
        "bytes": contract({"scaled": DataType.BYTES}, {"y": DataType.FP32}),
        "wide": contract({"scaled": (DataType.FP32, -1, 3)}, {"y": DataType.FP32}),
        "othertype": contract({"x": DataType.INT64}, {"scaled": DataType.FP32}),
    }
    assert list(problems_of(graph)) == []
    made = compose(graph, lambda step: (PARTS | more).get(step.service or ""))
    assert made.contract is None
    assert path in [problem.path for problem in made.problems]
    assert text in " ".join(problem.what for problem in made.problems)


def test_names_are_mapped_between_parts() -> None:
    graph = node(
        NodeKind.SEQUENCE,
        ask("scaler", inputs={"x": "pixels"}, outputs={"scaled": "y"}),
        ask("judge", inputs={"scaled": "y"}),
    )
    made = compose(graph, of)
    assert made.contract is not None
    assert [one.name for one in made.contract.inputs] == ["pixels"]


def test_a_part_that_is_not_known_yet_leaves_the_contract_open_without_blame() -> None:
    made = compose(node(NodeKind.SEQUENCE, ask("scaler"), ask("unknown")), of)
    assert (made.contract, made.problems) == (None, [])


def test_an_average_of_classifiers_keeps_their_label() -> None:
    made = compose(node(NodeKind.ENSEMBLE, ask("judge"), ask("judge2")), of)
    assert made.contract is not None
    assert sorted(one.name for one in made.contract.outputs) == ["label", "p"]


def test_whole_numbers_widen_and_never_narrow() -> None:
    narrow = contract({"x": DataType.FP32}, {"n": DataType.INT32})
    wide = contract({"n": DataType.FP64}, {"y": DataType.FP32})
    back = contract({"n": DataType.INT16}, {"y": DataType.FP32})
    found = {"narrow": narrow, "wide": wide, "back": back}
    assert compose(node(NodeKind.SEQUENCE, ask("narrow"), ask("wide")), lambda s: found[s.service or ""]).contract
    assert compose(node(NodeKind.SEQUENCE, ask("narrow"), ask("back")), lambda s: found[s.service or ""]).problems


def test_a_revision_of_a_graph_has_the_digest_of_the_graph_and_of_its_own_models() -> None:
    one = GraphPart(reference="m@a", model="m", version="1", digest="sha256:1")
    two = GraphPart(reference="m@a", model="m", version="2", digest="sha256:2")
    assert graph_digest(GOOD, [one]) == graph_digest(GOOD, [one])
    assert graph_digest(GOOD, [one]) != graph_digest(GOOD, [two])
    assert graph_digest(GOOD, []) != graph_digest(node(NodeKind.SEQUENCE, ask("scaler")), [])
