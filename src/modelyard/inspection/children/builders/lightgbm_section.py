"""One `key=value` section of a LightGBM text model, and the tree in it (tree.h, Tree::ToString)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from modelyard.domain.errors.uploads import WeightsFormat
from modelyard.inspection.children.builders.tree_ensemble import Floats, Ints, Test, Tree

ZERO: Final = float(np.float32(1e-35))  # meta.h, kZeroThreshold
_CATEGORICAL: Final = 1
_DEFAULT_LEFT: Final = 2
_MISSING_ZERO: Final = 1
_MISSING_NAN: Final = 2
_LEAF_LIMIT: Final = 10_000_000
_WORD_BITS: Final = 32


class MissingAs(Enum):
    """How a column is looked at: as a category, with zeros missing, or in any other way."""

    CATEGORY = "category"
    ZERO = "zero"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTree:
    """A tree, and its columns by the way they are looked at."""

    tree: Tree
    columns: Mapping[MissingAs, frozenset[int]]


class Section:
    """Lines `key=value`; a line without `=` is a flag."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = dict(line.partition("=")[::2] for line in text.splitlines() if line)
        self.name = name

    def flag(self, key: str) -> bool:
        """Whether the line is there."""
        return key in self._lines

    def text(self, key: str, default: str | None = None) -> str:
        """The text of a line."""
        value = self._lines.get(key, default)
        if value is None:
            raise WeightsFormat(f"the LightGBM model has no {key} in {self.name}")
        return value

    def whole(self, key: str, *, most: int, least: int = 0, default: str | None = None) -> int:
        """A whole number from `least` to `most`."""
        try:
            number = int(self.text(key, default))
        except ValueError as error:
            raise WeightsFormat(f"{self.name}: {key} is not a whole number") from error
        if not least <= number <= most:
            raise WeightsFormat(f"{self.name}: {key} must be from {least} to {most}")
        return number

    def floats(self, key: str, count: int) -> Floats:
        """`count` numbers."""
        try:
            values = np.array(self.text(key, "").split(), np.float64)
        except ValueError as error:
            raise WeightsFormat(f"{self.name}: {key} is not a list of numbers") from error
        return self._counted(key, values, count)

    def whole_array(self, key: str, count: int | None) -> Ints:
        """`count` whole numbers, any number of them with None."""
        try:
            values = np.array(self.text(key, "").split(), np.int64)
        except (ValueError, OverflowError) as error:
            raise WeightsFormat(f"{self.name}: {key} is not a list of whole numbers") from error
        return values if count is None else self._counted(key, values, count)

    def _counted(self, key: str, values: np.ndarray, count: int) -> np.ndarray:
        if len(values) != count:
            raise WeightsFormat(f"{self.name}: {key} has {len(values)} entries, {count} are needed")
        return values


def read_tree(section: Section, number: int, *, target: int) -> TextTree:
    """Tree `number`. A numeric split goes left when x ≤ threshold, a categorical one when x is in its set.

    NaN counts as 0 where the column had no missing values in training, goes the default way where missing is NaN or
    zero, and is in no category (tree.h, NumericalDecision and CategoricalDecision).
    """
    if section.whole("is_linear", most=1, default="0"):
        raise WeightsFormat("linear trees are not supported", hint="train without linear_tree")
    leaves = section.whole("num_leaves", least=1, most=_LEAF_LIMIT)
    count = leaves - 1
    feature, kinds = section.whole_array("split_feature", count), section.whole_array("decision_type", count)
    threshold = section.floats("threshold", count)
    left, right = section.whole_array("left_child", count), section.whole_array("right_child", count)
    if count and (kinds.min() < 0 or kinds.max() > 0xFF):  # noqa: PLR2004 (one byte)
        raise WeightsFormat(f"{section.name}: decision_type is not a byte")
    categorical = (kinds & _CATEGORICAL) != 0
    missing = (kinds >> 2) & 3
    by_default = (kinds & _DEFAULT_LEFT) != 0
    zero_goes_left = threshold >= 0
    goes_missing = np.where((missing == _MISSING_ZERO) | (missing == _MISSING_NAN), by_default, zero_goes_left)
    tree = Tree(
        target=target,
        feature=feature,
        split=np.where(categorical, 0.0, _beyond_zero(threshold)),
        test=np.where(categorical, np.uint8(Test.MEMBER), np.uint8(Test.LESS_OR_EQUAL)),
        yes=left,
        no=right,
        missing_yes=goes_missing & ~categorical,
        leaf=section.floats("leaf_value", leaves),
        members=_members(section, np.flatnonzero(categorical), threshold),
    )
    numeric = ~categorical
    columns = {
        MissingAs.CATEGORY: _columns(feature, categorical),
        MissingAs.ZERO: _columns(feature, numeric & (missing == _MISSING_ZERO)),
        MissingAs.OTHER: _columns(feature, numeric & (missing != _MISSING_ZERO)),
    }
    return TextTree(tree=tree, columns=columns)


def _beyond_zero(threshold: Floats) -> Floats:
    """Thresholds moved to the rim of what counts as zero: predict takes |x| ≤ kZeroThreshold as 0 (c_api.cpp)."""
    above = np.where((threshold >= 0) & (threshold < ZERO), ZERO, threshold)
    return np.where((above < 0) & (above >= -ZERO), np.nextafter(-ZERO, -np.inf), above)


def _columns(feature: Ints, chosen: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> frozenset[int]:
    return frozenset(feature[chosen].tolist())


def _members(section: Section, nodes: Ints, threshold: Floats) -> dict[int, Sequence[int]]:
    """The sets of the categorical nodes: `threshold` is an index into bitsets of 32-bit words."""
    if not len(nodes):
        return {}
    sets = section.whole("num_cat", least=1, most=_LEAF_LIMIT)
    bounds, words = section.whole_array("cat_boundaries", sets + 1), section.whole_array("cat_threshold", None)
    if bounds[0] != 0 or (np.diff(bounds) < 1).any() or bounds[-1] != len(words):
        raise WeightsFormat(f"{section.name}: the category sets do not fit their list")
    if len(words) and not 0 <= words.min() <= words.max() < 1 << _WORD_BITS:
        raise WeightsFormat(f"{section.name}: a category word is not 32 bits")
    found: dict[int, Sequence[int]] = {}
    for node in nodes.tolist():
        index = threshold[node]
        if not (0 <= index < sets and index == int(index)):
            raise WeightsFormat(f"{section.name}: a category set does not exist")
        mine = words[bounds[int(index)] : bounds[int(index) + 1]].astype("<u4")
        # an empty set is written as a member that no whole number equals
        found[node] = np.flatnonzero(np.unpackbits(mine.view(np.uint8), bitorder="little")).tolist() or [-1 << 24]
    return found
