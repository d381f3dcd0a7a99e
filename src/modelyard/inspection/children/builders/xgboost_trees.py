"""XGBoost's own model files (JSON and UBJSON) become a graph, without the xgboost library.

Reads the layout of XGBoost's model schema (doc/model.schema) as versions 1.6 to 3.x write it: gbtree, dart, gblinear.
Comparisons, leaves and sums are float32, as in XGBoost. What is promised is `Booster.predict`; for models saved by the
scikit-learn classes that stopped early, their `predict`, which ends at the best iteration.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsValues
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.builders import Built, ubjson
from modelyard.inspection.children.builders.boosted import Answer, begin, finish
from modelyard.inspection.children.builders.graph import Graph
from modelyard.inspection.children.builders.tree_ensemble import Floats, add_ensemble
from modelyard.inspection.children.builders.xgboost_node import Node, read_tree

_FEATURE_LIMIT: Final = 1_000_000
_TARGET_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How an objective turns margins into answers, and how its `base_score` is kept (objective.h, ProbToMargin)."""

    answer: Answer
    base: str = "identity"


_SAME: Final = Link(answer=Answer.VALUE)
_EXP: Final = Link(answer=Answer.EXP, base="log")
_LINKS: Final[Mapping[str, Link]] = {
    **dict.fromkeys(
        (
            "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
            "reg:quantileerror", "rank:pairwise", "rank:ndcg", "rank:map", "reg:expectileerror",
        ),
        _SAME,
    ),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"), _EXP),
    "reg:logistic": Link(answer=Answer.SIGMOID, base="logit"),
    "binary:logistic": Link(answer=Answer.BINARY, base="logit"),
    "binary:logitraw": Link(answer=Answer.VALUE, base="vector"),
    "binary:hinge": Link(answer=Answer.HINGE),
    "multi:softprob": Link(answer=Answer.SOFTMAX),
    "multi:softmax": Link(answer=Answer.SOFTMAX),
}  # fmt: skip


def build(directory: Path, weights: str, config: Mapping[str, object]) -> Built:
    """The graph of the XGBoost model in `directory/weights`.

    Input: FP32 [batch, features], NaN is missing. Output: `probabilities` [batch, classes], or `prediction`
    [batch, targets].

    Raises:
        WeightsFormat: damaged, of an unknown layout, or of a kind that is not supported (named).
        WeightsValues: a leaf or split is not finite.
        BundleMismatch, ConfigInvalid: the config declares something else.
    """
    learner = Node(_parse((directory / weights).read_bytes()), "model").node("learner")
    param = learner.node("learner_model_param")
    features = param.whole("num_feature", least=1, most=_FEATURE_LIMIT)
    targets = max(
        param.whole("num_class", most=_TARGET_LIMIT, default=0),
        param.whole("num_target", most=_TARGET_LIMIT, default=1),
        1,
    )
    name = learner.node("objective").text("name")
    link = _LINKS.get(name)
    if link is None:
        raise WeightsFormat(
            f"the XGBoost objective {quote(name)} is not supported", hint=f"supported: {', '.join(_LINKS)}"
        )
    graph = Graph("xgboost")
    declared, value = begin(graph, config, features=features, datatype=DataType.FP32)
    base = _base(param, link, targets)
    notes: list[str] = []
    booster = learner.node("gradient_booster")
    if booster.text("name") == "gblinear":
        margin = _linear(graph, value, booster, base)
    else:
        margin = _trees(graph, value, learner, booster, base=base, features=features, notes=notes)
    answer = link.answer
    if answer in {Answer.BINARY, Answer.HINGE} and targets > 1:
        answer = Answer.SIGMOID if answer is Answer.BINARY else Answer.STEP  # several labels, each its own question
    return finish(
        graph,
        margin,
        config,
        answer=answer,
        targets=targets,
        feature_names=tuple(learner.texts("feature_names", count=features)),
        notes=tuple(notes),
        source=declared,
    )


def _parse(data: bytes) -> object:
    """JSON or UBJSON, by the second byte: UBJSON has a key length there, JSON a quote or white space."""
    if data[:1] != b"{":
        raise WeightsFormat("not an XGBoost model: JSON and UBJSON files begin with an object", hint="use save_model")
    if data[1:2] in {b"i", b"U", b"I", b"l", b"L", b"#", b"$", b"N"}:
        return ubjson.loads(data)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsFormat("the XGBoost model is not valid JSON") from error


def _base(param: Node, link: Link, targets: int) -> list[float]:
    """`base_score` as margins, one a target; a scalar up to XGBoost 3.0, a vector "[a,b]" from 3.1 on."""
    try:
        scores = [float(part) for part in param.text("base_score").strip("[] ").split(",") if part]
    except ValueError as error:
        raise WeightsFormat("base_score is not a number") from error
    if len(scores) == 1:
        scores *= targets
    if len(scores) != targets or not all(math.isfinite(score) for score in scores):
        raise WeightsFormat(f"base_score does not give one finite number for each of {targets} targets")
    try:
        match link.base:
            case "logit":
                return [-math.log(1.0 / score - 1.0) for score in scores]
            case "vector" if not param.text("base_score").startswith("["):
                raise WeightsFormat(
                    "binary:logitraw written before XGBoost 3.1 keeps its base score in another way",
                    hint="load and save it again with XGBoost 3.1 or later",
                )
            case "log":
                return [math.log(score) for score in scores]
            case _:
                return scores
    except (ValueError, ZeroDivisionError) as error:
        raise WeightsValues("base_score lies outside the range of its objective") from error


def _trees(  # noqa: PLR0913 (what a booster is made of)
    graph: Graph, value: str, learner: Node, booster: Node, *, base: list[float], features: int, notes: list[str]
) -> str:
    """The margin of a gbtree or dart booster."""
    drop = None
    if booster.text("name") == "dart":
        drop = booster.floats("weight_drop")
        booster = booster.node("gbtree")
    model = booster.node("model")
    groups = model.whole_array("tree_info")
    raw = model.items("trees")
    if len(groups) != len(raw) or (len(groups) and (groups.min() < 0 or groups.max() >= len(base))):
        raise WeightsFormat("tree_info does not give every tree one of the targets")
    if drop is not None and len(drop) != len(raw):
        raise WeightsFormat("weight_drop does not give every tree a weight")
    used = _used_trees(learner, model, len(raw), len(base))
    if used < len(raw):
        notes.append(f"training stopped early: {used} of {len(raw)} trees answer, up to the best iteration")
    scale = drop if drop is not None else np.ones(len(raw), np.float32)
    trees = [read_tree(raw[index], index, target=int(groups[index]), scale=scale[index]) for index in range(used)]
    columns = sorted({column for tree in trees for column in tree.categorical})
    if columns:
        value = _floor(graph, value, columns, features)
        notes.append(f"columns {columns[:20]} are categories: send their codes, counted from 0, as numbers")
    kept = (tree.tree for tree in trees)
    return add_ensemble(graph, value, kept, features=features, base=base, dtype=np.float32)


def _used_trees(learner: Node, model: Node, trees: int, targets: int) -> int:
    """All trees; up to the best iteration where the scikit-learn classes wrote the file."""
    attributes = learner.node("attributes", default={})
    if not attributes.has("scikit_learn") or not attributes.has("best_iteration"):
        return trees
    rounds = attributes.whole("best_iteration", most=trees) + 1
    if model.has("iteration_indptr"):
        bounds = model.whole_array("iteration_indptr")
        if rounds < len(bounds) and 0 < bounds[rounds] <= trees:
            return int(bounds[rounds])
        raise WeightsFormat("best_iteration lies outside the trees")
    parallel = model.node("gbtree_model_param").whole("num_parallel_tree", least=1, most=trees, default=1)
    return min(trees, rounds * parallel * targets)


def _floor(graph: Graph, value: str, columns: list[int], features: int) -> str:
    """Categories are compared as whole numbers (categorical.h, AsCat)."""
    mask = np.zeros((1, features), np.bool_)
    mask[0, columns] = True
    return graph.add("Where", graph.constant(mask), graph.add("Floor", value), value)


def _linear(graph: Graph, value: str, booster: Node, base: list[float]) -> str:
    """A gblinear booster: weights [feature + 1, target] with the bias last; missing counts as 0."""
    if len(set(base)) > 1:
        raise WeightsFormat(
            "a gblinear booster with one base score a class is answered differently by different XGBoost versions",
            hint="train it with a fixed base_score, such as 0.5",
        )
    weights: Floats = booster.node("model").floats("weights")
    if len(weights) % len(base):
        raise WeightsFormat("the weights of the linear booster do not fit its targets")
    table = weights.reshape(-1, len(base))
    if not np.isfinite(table).all():
        raise WeightsValues("a weight of the linear booster is not finite")
    clean = graph.add("Where", graph.add("IsNaN", value), graph.scalar(0, np.float32), value)
    bias = table[-1] + np.array(base, np.float32)
    return graph.add("Gemm", clean, graph.constant(table[:-1], np.float32), graph.constant(bias, np.float32))
