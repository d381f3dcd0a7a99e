"""Decision trees of any booster, checked and written as one ONNX `TreeEnsemble` (ai.onnx.ml 5).

Version 5 is used because it computes in float64 where asked (LightGBM compares float64 thresholds) and knows set
membership (categories); onnxruntime runs it with the same kernel as the older operators.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from modelyard.domain.errors.uploads import WeightsFormat, WeightsValues
from modelyard.inspection.children.builders.graph import Graph

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

DEPTH_LIMIT: Final = 2_000
NODE_LIMIT: Final = 20_000_000


class Test(IntEnum):
    """What an interior node asks of its feature; the values are those of the operator's `nodes_modes`."""

    LESS_OR_EQUAL = 0
    LESS = 1
    EQUAL = 4
    MEMBER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One tree as arrays over its interior nodes; node 0 is the root, without nodes leaf 0 is all there is.

    `yes` and `no` are the next node, or `~leaf` when negative. `missing_yes` says where NaN goes. `members` holds, by
    node, the set that a `Test.MEMBER` node asks for.
    """

    target: int
    feature: Ints
    split: Floats
    test: npt.NDArray[np.uint8]
    yes: Ints
    no: Ints
    missing_yes: npt.NDArray[np.bool_]
    leaf: Floats
    members: dict[int, Sequence[int]]


def order_of(tree: Tree, *, name: str, features: int) -> Ints:
    """Nodes in breadth-first order from the root, proved to be a tree.

    Raises:
        WeightsFormat: a child outside the tree, a node with two parents, a cycle, an unknown feature, too deep.
        WeightsValues: a leaf or split that is NaN or a leaf that is infinite.
    """
    nodes, leaves = len(tree.feature), len(tree.leaf)
    children = np.concatenate([tree.yes, tree.no])
    if leaves == 0 or (children >= nodes).any() or (children < -leaves).any():
        raise WeightsFormat(f"{name}: a child lies outside the tree")
    parents = np.bincount(children[children >= 0], minlength=max(nodes, 1))
    if nodes and (parents[0] or (parents > 1).any()):
        raise WeightsFormat(f"{name}: a node has two parents or is its own ancestor")
    if nodes and (tree.feature.min() < 0 or tree.feature.max() >= features):
        raise WeightsFormat(f"{name}: it splits on a feature that the model does not have")
    if not np.isfinite(tree.leaf).all() or np.isnan(tree.split).any():
        raise WeightsValues(f"{name}: a leaf or split is not a finite number")
    level: Ints = np.zeros(min(nodes, 1), np.int64)
    levels = [level]
    while len(level):
        if len(levels) > DEPTH_LIMIT:
            raise WeightsFormat(f"{name}: deeper than {DEPTH_LIMIT}", hint="limit the depth when training")
        below = np.stack([tree.yes[level], tree.no[level]], axis=1).ravel()
        level = below[below >= 0]
        levels.append(level)
    return np.concatenate(levels)


class _Columns:
    """The operator's attributes, gathered tree by tree."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.feature: list[Ints] = []
        self.split: list[Floats] = []
        self.test: list[npt.NDArray[np.uint8]] = []
        self.yes: list[Ints] = []
        self.no: list[Ints] = []
        self.missing_yes: list[npt.NDArray[np.bool_]] = []
        self.leaf: list[Floats] = []
        self.target: list[Ints] = []
        self.members: list[float] = []
        self._nodes = 0
        self._leaves = 0

    def add(self, tree: Tree, order: Ints) -> None:
        """Append `tree` with its nodes in `order`; children become positions in the joint arrays."""
        place = np.zeros(len(tree.feature), np.int64)
        place[order] = np.arange(len(order)) + self._nodes
        for child, into in ((tree.yes[order], self.yes), (tree.no[order], self.no)):
            into.append(np.where(child >= 0, place[np.maximum(child, 0)], child - self._leaves))
        self.roots.append(self._nodes)
        self.feature.append(tree.feature[order])
        self.split.append(tree.split[order])
        self.test.append(tree.test[order])
        self.missing_yes.append(tree.missing_yes[order])
        self.leaf.append(tree.leaf)
        self.target.append(np.full(len(tree.leaf), tree.target, np.int64))
        for node in order if tree.members else ():
            if tree.test[node] == Test.MEMBER:
                self.members += [*(float(member) for member in tree.members[int(node)]), float("nan")]
        self._nodes += len(order)
        self._leaves += len(tree.leaf)
        if self._nodes + self._leaves > NODE_LIMIT:
            raise WeightsFormat(f"the model has more than {NODE_LIMIT} tree nodes")


def add_ensemble(
    graph: Graph, value: str, trees: Iterable[Tree], *, features: int, base: Sequence[float], dtype: npt.DTypeLike
) -> str:
    """Append nodes that give base + sum of trees, [rows, targets], for `value` [rows, `features`] of type `dtype`.

    `base` has one entry a target. Trees are taken one at a time, so `trees` may be a generator.
    """
    columns = _Columns()
    constant = np.array(base, np.float64)
    for number, tree in enumerate(trees):
        order = order_of(tree, name=f"tree {number}", features=features)
        if len(order):
            columns.add(tree, order)
        else:
            constant[tree.target] += tree.leaf[0]
    if not columns.roots:
        # without any split the answer is the base alone, once a row; NaN must not reach it
        columns.add(_stump(dtype), np.zeros(1, np.int64))
    total = _ensemble(graph, value, columns, targets=len(constant), dtype=dtype)
    return graph.add("Add", total, graph.constant(constant.reshape(1, -1), dtype)) if constant.any() else total


def _stump(dtype: npt.DTypeLike) -> Tree:
    zero = np.zeros(1, np.int64)
    return Tree(
        target=0,
        feature=zero,
        split=np.zeros(1, dtype),
        test=np.zeros(1, np.uint8),
        yes=~zero,
        no=~zero - 1,
        missing_yes=np.ones(1, np.bool_),
        leaf=np.zeros(2, dtype),
        members={},
    )


def _ensemble(graph: Graph, value: str, columns: _Columns, *, targets: int, dtype: npt.DTypeLike) -> str:
    """The one node."""
    yes, no = np.concatenate(columns.yes), np.concatenate(columns.no)

    def tensor(parts: Sequence[npt.NDArray[Any]], kind: npt.DTypeLike) -> object:
        return numpy_helper.from_array(np.concatenate(parts).astype(kind))

    members = {}
    if columns.members:
        members["membership_values"] = numpy_helper.from_array(np.array(columns.members, dtype))
    return graph.add(
        "TreeEnsemble",
        value,
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=1,  # SUM
        post_transform=0,  # NONE
        tree_roots=columns.roots,
        nodes_featureids=np.concatenate(columns.feature).tolist(),
        nodes_splits=tensor(columns.split, dtype),
        nodes_modes=tensor(columns.test, np.uint8),
        nodes_truenodeids=np.where(yes >= 0, yes, ~yes).tolist(),
        nodes_trueleafs=(yes < 0).astype(np.int64).tolist(),
        nodes_falsenodeids=np.where(no >= 0, no, ~no).tolist(),
        nodes_falseleafs=(no < 0).astype(np.int64).tolist(),
        nodes_missing_value_tracks_true=np.concatenate(columns.missing_yes).astype(np.int64).tolist(),
        leaf_targetids=np.concatenate(columns.target).tolist(),
        leaf_weights=tensor(columns.leaf, dtype),
        **members,
    )
