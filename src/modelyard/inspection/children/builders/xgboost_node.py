"""Typed looks into a parsed XGBoost model: a key that is absent or of the wrong type is named, never a crash."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.inspection.children.builders.tree_ensemble import Floats, Ints, Test, Tree

CATEGORY_LIMIT = 1 << 24


class Node:
    """One object of the model and where it stands. Numbers may be written as text, as XGBoost does."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise WeightsFormat(f"not an XGBoost model: {path} is not an object")
        self._value = value
        self._path = path

    def _wrong(self, key: str, what: str) -> WeightsFormat:
        return WeightsFormat(f"not an XGBoost model: {self._path}.{key} is not {what}")

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._value

    def node(self, key: str, default: object = None) -> "Node":
        """The object under `key`."""
        return Node(self._value.get(key, default), f"{self._path}.{key}")

    def text(self, key: str) -> str:
        """The text under `key`."""
        value = self._value.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def texts(self, key: str, *, count: int) -> list[str]:
        """A list of `count` texts; empty when absent or of another length."""
        value = self._value.get(key)
        if isinstance(value, list) and len(value) == count and all(isinstance(item, str) for item in value):
            return [str(item) for item in value]
        return []

    def whole(self, key: str, *, most: int, least: int = 0, default: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        value = self._value.get(key, default)
        try:
            number = int(value) if isinstance(value, (str, int)) else None
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return number

    def items(self, key: str) -> list[object]:
        """A list of anything."""
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value

    def floats(self, key: str) -> Floats:
        """Numbers as float32; too large ones become infinite, which whoever uses them refuses."""
        with np.errstate(over="ignore"):
            return np.asarray(self._array(key), np.float32)

    def whole_array(self, key: str) -> Ints:
        """Whole numbers; absent counts as none."""
        values = self._array(key)
        if values.size and values.dtype.kind not in "biu":
            raise self._wrong(key, "a list of whole numbers")
        return np.asarray(values, np.int64)

    def _array(self, key: str) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
        value = self._value.get(key, [])
        if isinstance(value, (list, np.ndarray)):
            try:
                array = np.asarray(value)
            except (ValueError, OverflowError) as error:
                raise self._wrong(key, "a list of numbers") from error
            if array.ndim == 1 and (array.size == 0 or array.dtype.kind in "biuf"):
                return array
        raise self._wrong(key, "a list of numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTree:
    """A tree and the columns that it splits by category."""

    tree: Tree
    categorical: frozenset[int]


def read_tree(raw: object, number: int, *, target: int, scale: float) -> ReadTree:
    """Tree `number` of the model, its leaves times `scale` (the weight that dart gave it).

    A numeric split goes left when x < split, a categorical one goes right when x is in its set; NaN goes where
    `default_left` says (predict_fn.h).
    """
    node = Node(raw, f"trees[{number}]")
    if node.node("tree_param", {}).whole("size_leaf_vector", most=1 << 31, default=0) > 1:
        raise WeightsFormat(
            "trees with a vector in each leaf (multi_output_tree) are not supported",
            hint="train with multi_strategy=one_output_per_tree",
        )
    left, right = node.whole_array("left_children"), node.whole_array("right_children")
    values, feature = node.floats("split_conditions"), node.whole_array("split_indices")
    default_left = node.whole_array("default_left")
    kinds = node.whole_array("split_type") if node.has("split_type") else np.zeros(len(left), np.int64)
    size = len(left)
    if not size or any(len(part) != size for part in (right, values, feature, default_left, kinds)):
        raise WeightsFormat(f"trees[{number}]: its lists differ in length")
    is_leaf = left == -1
    inner = ~is_leaf
    children = np.concatenate([left[inner], right[inner]])
    if (children < 0).any() or (children >= size).any():
        raise WeightsFormat(f"trees[{number}]: a child lies outside the tree")
    # XGBoost numbers nodes and leaves together; positions are split into two series
    position = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(inner) - 1)
    members = _members(node, np.flatnonzero(inner & (kinds == 1)), position)
    categorical = kinds[inner] == 1
    goes_left, goes_right = position[left[inner]], position[right[inner]]
    prefers_left = default_left[inner] != 0
    columns = frozenset(int(column) for column in feature[inner][categorical])
    if set(feature[inner][~categorical].tolist()) & columns:
        raise WeightsFormat(f"trees[{number}]: one column is split both as a category and as a number")
    tree = Tree(
        target=target,
        feature=feature[inner],
        split=np.where(categorical, np.float32(0), values[inner]),
        test=np.where(categorical, np.uint8(Test.MEMBER), np.uint8(Test.LESS)),
        yes=np.where(categorical, goes_right, goes_left),
        no=np.where(categorical, goes_left, goes_right),
        missing_yes=np.where(categorical, ~prefers_left, prefers_left),
        leaf=values[is_leaf] * np.float32(scale),
        members=members,
    )
    return ReadTree(tree=tree, categorical=columns)


def _members(node: Node, nodes: Ints, position: Ints) -> dict[int, Sequence[int]]:
    """The sets of the categorical nodes, by position among interior nodes."""
    if not len(nodes):
        return {}
    sizes, begins = node.whole_array("categories_sizes"), node.whole_array("categories_segments")
    owners, categories = node.whole_array("categories_nodes"), node.whole_array("categories")
    if not len(sizes) == len(begins) == len(owners) or set(owners.tolist()) != set(nodes.tolist()):
        raise WeightsFormat("the categories of a tree do not fit its splits")
    if len(categories) and not 0 <= categories.min() <= categories.max() < CATEGORY_LIMIT:
        raise WeightsFormat("a category is negative or too large")
    found: dict[int, Sequence[int]] = {}
    for owner, begin, size in zip(owners.tolist(), begins.tolist(), sizes.tolist(), strict=True):
        if begin < 0 or size < 1 or begin + size > len(categories):
            raise WeightsFormat("the categories of a split lie outside their list")
        found[int(position[owner])] = sorted(set(categories[begin : begin + size].tolist()))
    return found
