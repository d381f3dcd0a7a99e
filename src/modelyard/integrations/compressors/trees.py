"""Ensembles of trees with fewer of them, and without what no runtime reads.

What goes always: counts of training rows in the nodes, weights of zero, and marks of missing values where none is set.
What goes as far as is allowed: the last rounds of trees. In a boosted model they matter least; in a forest all are
alike, and the rest has to weigh more. Which of the two an ensemble is, its operator does not say, so both are tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import NotSupported

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_OPERATORS: Final = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}
_UNREAD: Final = ("nodes_hitrates", "nodes_hitrates_as_tensor")
_MISSING: Final = "nodes_missing_value_tracks_true"


@dataclass(frozen=True, slots=True)
class Cut:
    """The first `rounds` of trees; with `rescaled`, their weights make up for the ones that are gone."""

    rounds: int
    rescaled: bool


class Ensemble:
    """The trees of an ONNX model.

    Raises:
        NotSupported: there is not exactly one operator of trees in it.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        self._model = onnx.load(str(path))
        found = [node for node in self._model.graph.node if node.op_type in _OPERATORS]
        if len(found) != 1:
            raise NotSupported(
                f"{len(found)} ensembles of trees are in this model, and trees is for exactly one",
                hint="int8, fp16 or graph may help",
            )
        [self._node] = found
        self._leaf = _OPERATORS[self._node.op_type]
        self._given = {each.name: onnx.helper.get_attribute_value(each) for each in self._node.attribute}
        self._round_of = _rounds(*(self._array(f"{self._leaf}_{name}") for name in ("treeids", "ids")))

    @property
    def rounds(self) -> int:
        """How many rounds of trees: trees of a forest; of a boosted model of several classes, one for each class."""
        return max(self._round_of.values(), default=-1) + 1

    @property
    def trees(self) -> int:
        """How many trees."""
        return len(self._round_of)

    def trees_in(self, cut: Cut) -> int:
        """How many trees a cut leaves."""
        return sum(each < cut.rounds for each in self._round_of.values())

    def write(self, target: Path, cut: Cut) -> None:
        """Write the model with what the cut leaves."""
        import onnx

        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        place = list(self._model.graph.node).index(self._node)
        node = made.graph.node[place]
        del node.attribute[:]
        for name, value in self._of(cut).items():
            node.attribute.append(onnx.helper.make_attribute(name, value))
        onnx.save(made, str(target))

    def _of(self, cut: Cut) -> dict[str, Any]:
        import numpy as np

        keeps = {tree for tree, number in self._round_of.items() if number < cut.rounds}
        nodes = np.isin(self._array("nodes_treeids"), list(keeps))
        leaves = np.isin(self._array(f"{self._leaf}_treeids"), list(keeps))
        trees, points, ids = (self._array(f"{self._leaf}_{name}") for name in ("treeids", "nodeids", "ids"))
        leaves &= _needed(trees, points, ids, self._weights())
        left = {name: value for name, value in self._given.items() if name not in _UNREAD}
        if not any(left.get(_MISSING, ())):
            left.pop(_MISSING, None)
        scale = self.rounds / cut.rounds if cut.rescaled else 1.0
        return {name: self._cut(name, value, nodes, leaves, scale) for name, value in left.items()}

    def _cut(self, name: str, value: Any, nodes: "Array", leaves: "Array", scale: float) -> Any:  # noqa: ANN401
        import numpy as np
        from onnx import numpy_helper

        of_leaves = name.startswith(f"{self._leaf}_")
        if not of_leaves and not name.startswith("nodes_"):
            return value
        mask, factor = (leaves, scale) if of_leaves and "weights" in name else (leaves if of_leaves else nodes, None)
        if name.endswith("_as_tensor"):
            array = numpy_helper.to_array(value)[mask]
            return numpy_helper.from_array(array if factor is None else (array * factor).astype(array.dtype))
        if name == "nodes_modes":
            return [mode for mode, stays in zip(value, mask, strict=True) if stays]
        array = np.asarray(value)[mask]
        return (array if factor is None else array * factor).tolist()

    def _weights(self) -> "Array":
        from onnx import numpy_helper

        tensor = self._given.get(f"{self._leaf}_weights_as_tensor")
        return numpy_helper.to_array(tensor) if tensor is not None else self._array(f"{self._leaf}_weights")

    def _array(self, name: str) -> "Array":
        import numpy as np

        return np.asarray(self._given[name])


def fewest(rounds: int, is_enough: Callable[[Cut], bool]) -> Iterator[Cut]:
    """Cuts that are enough, each smaller than the one before; the first leaves every tree. By halving.

    It takes for granted that more trees do not do worse, so what it ends with is small, and need not be the smallest.
    """
    whole = Cut(rounds, rescaled=False)
    if not is_enough(whole):
        return
    yield whole
    low, high = 0, rounds
    while high - low > 1:
        middle = (low + high) // 2
        enough = next(
            (cut for cut in (Cut(middle, rescaled=True), Cut(middle, rescaled=False)) if is_enough(cut)), None
        )
        if enough is None:
            low = middle
        else:
            high = middle
            yield enough


def _rounds(trees: "Array", ids: "Array") -> dict[int, int]:
    """The round of each tree: its place among all, or among those of its class where each tree speaks of one."""
    import numpy as np

    pairs = np.unique(np.stack([trees, ids]), axis=1)
    order = list(dict.fromkeys(trees.tolist()))
    if len(pairs[0]) > len(order):
        return {tree: place for place, tree in enumerate(order)}
    id_of = dict(pairs.T.tolist())
    seen: dict[int, int] = {}
    found = {}
    for tree in order:
        found[tree] = seen.get(id_of[tree], 0)
        seen[id_of[tree]] = found[tree] + 1
    return found


def _needed(trees: "Array", nodes: "Array", ids: "Array", weights: "Array") -> "Array":
    """Weights that are not zero; and, of each leaf that has none, and of each class, one."""
    import numpy as np

    needed: Array = weights != 0
    of_leaf = np.stack([trees, nodes])
    for columns in (of_leaf, ids[None, :]):
        _, first, group = np.unique(columns, axis=1, return_index=True, return_inverse=True)
        has = np.zeros(len(first), dtype=bool)
        np.logical_or.at(has, group.reshape(-1), needed)
        needed[first[~has]] = True
    return needed
