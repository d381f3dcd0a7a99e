"""Check the arrays that compiled code will follow without looking, before it is called.

Decision trees, histogram boosting and neighbour trees walk arrays by the indices that lie in them; a file can hold any
numbers there. What is wrong is refused here: a crafted file cannot make the library read or write past an array.
The same walk also takes every estimator down to one thread.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.uploads import WeightsFormat

_MAX_OBJECTS: Final = 2_000_000
_LIBRARIES: Final = ("sklearn.", "xgboost.", "lightgbm.")
_LEAF: Final = -1


def parts_of(model: object) -> Iterator[Any]:
    """Every object of a model library inside `model`, itself first, through containers, each once."""
    seen: set[int] = set()
    waiting: list[object] = [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | bool | type(None)):
            continue
        seen.add(id(item))
        if len(seen) > _MAX_OBJECTS:
            raise WeightsFormat("the model is made of too many parts", hint="save it without its training data")
        module: object = type(item).__module__  # a class in native code may hold something else than text there
        if isinstance(module, str) and module.startswith(_LIBRARIES):
            yield item
        waiting.extend(_inside(item))


def _inside(item: object) -> list[object]:
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if isinstance(item, np.ndarray):
        return list(item.ravel()) if item.dtype == object else []
    return list(getattr(item, "__dict__", {}).values())


def check(model: object) -> None:
    """Refuse (`WeightsFormat`) arrays that point outside themselves; set every `n_jobs` to 1 and `verbose` to 0."""
    for part in parts_of(model):
        name = type(part).__name__
        if name == "Tree":
            _check_tree(part)
        elif name == "TreePredictor":
            _check_predictor(part)
        elif name.startswith(("KDTree", "BallTree")):
            _check_neighbour_tree(part)
        for setting, quiet in (("n_jobs", 1), ("verbose", 0)):
            if setting in getattr(part, "__dict__", {}):
                setattr(part, setting, quiet)


def _check_tree(tree: Any) -> None:  # noqa: ANN401  (compiled type)
    state = tree.__getstate__()
    nodes = state["nodes"]
    left, right, feature = nodes["left_child"], nodes["right_child"], nodes["feature"]
    count = int(state["node_count"])
    position = np.arange(count)
    inner = left[:count] != _LEAF
    sound = (
        len(nodes) >= count > 0
        and len(state["values"]) >= count
        and bool(np.all((left[:count][inner] > position[inner]) & (left[:count][inner] < count)))
        and bool(np.all((right[:count][inner] > position[inner]) & (right[:count][inner] < count)))
        and bool(np.all(right[:count][~inner] == _LEAF))
        and bool(np.all((feature[:count][inner] >= 0) & (feature[:count][inner] < tree.n_features)))
    )
    _require(sound, "a decision tree")


def _check_predictor(predictor: Any) -> None:  # noqa: ANN401
    nodes = predictor.nodes
    count = len(nodes)
    position = np.arange(count)
    inner = nodes["is_leaf"] == 0
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    sound = count > 0 and bool(
        np.all(((left > position) & (left < count) & (right > position) & (right < count)) | ~inner)
    )
    categorical = inner & (nodes["is_categorical"] != 0)
    sets = nodes["bitset_idx"][categorical].astype(np.int64)
    sound = sound and bool(np.all(sets < len(predictor.raw_left_cat_bitsets)))
    sound = sound and bool(np.all(nodes["feature_idx"][inner] >= 0))
    _require(sound, "a boosted tree")


def check_features(model: object, features: int) -> None:
    """Refuse boosted trees that ask for a column past `features` (they do not keep the number themselves)."""
    for part in parts_of(model):
        if type(part).__name__ == "TreePredictor":
            inner = part.nodes["is_leaf"] == 0
            _require(bool(np.all(part.nodes["feature_idx"][inner] < features)), "a boosted tree")


def _check_neighbour_tree(tree: Any) -> None:  # noqa: ANN401
    data, index, nodes = (np.asarray(array) for array in tree.get_arrays()[:3])
    rows = len(data)
    sound = (
        len(index) == rows
        and bool(np.all((index >= 0) & (index < rows)))
        and bool(np.all((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"])))
        and bool(np.all(nodes["idx_end"] <= rows))
    )
    _require(sound, "a neighbour tree")


def _require(sound: bool, what: str) -> None:  # noqa: FBT001  (a claim and its subject)
    if not sound:
        raise WeightsFormat(
            f"{what} in the file points outside itself",
            hint="the file is damaged or was made by hand; save the model again",
        )
