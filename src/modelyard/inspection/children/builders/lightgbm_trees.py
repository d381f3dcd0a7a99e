"""LightGBM's text model files become a graph, without the lightgbm library.

Reads what `GBDT::SaveModelToString` writes (versions v2 to v4). Comparisons, leaves and sums are float64, as in
LightGBM; what is promised is `Booster.predict`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import WeightsFormat, WeightsValues
from modelyard.domain.tensors import DataType
from modelyard.inspection.children.builders import Built
from modelyard.inspection.children.builders.boosted import Answer, begin, finish
from modelyard.inspection.children.builders.graph import Graph
from modelyard.inspection.children.builders.lightgbm_section import ZERO, MissingAs, Section, TextTree, read_tree
from modelyard.inspection.children.builders.tree_ensemble import add_ensemble

_FEATURE_LIMIT: Final = 1_000_000
_TARGET_LIMIT: Final = 10_000
_ANSWERS: Final[Mapping[str, Answer]] = {
    **dict.fromkeys(
        (
            "regression", "regression_l2", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank",
            "rank_xendcg", "custom", "none", "",
        ),
        Answer.VALUE,
    ),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), Answer.EXP),
    "binary": Answer.BINARY,
    "multiclass": Answer.SOFTMAX,
    "multiclassova": Answer.ONE_VS_ALL,
    "cross_entropy": Answer.SIGMOID,
    "cross_entropy_lambda": Answer.SOFTPLUS,
}  # fmt: skip


def build(directory: Path, weights: str, config: Mapping[str, object]) -> Built:
    """The graph of the LightGBM model in `directory/weights`.

    Input: FP64 [batch, features], NaN is missing. Output: `probabilities` FP32 [batch, classes], or `prediction` FP64
    [batch, targets].

    Raises:
        WeightsFormat: damaged, or of a kind that is not supported (linear trees, unknown objectives).
        WeightsValues: a leaf or split is not finite.
        BundleMismatch, ConfigInvalid: the config declares something else.
    """
    header, sections, tail = _split((directory / weights).read_bytes())
    features = header.whole("max_feature_idx", most=_FEATURE_LIMIT) + 1
    targets = header.whole("num_tree_per_iteration", least=1, most=_TARGET_LIMIT)
    answer, scale = _objective(header)
    if answer is Answer.BINARY and targets != 1:
        raise WeightsFormat("a binary model must have one tree an iteration")
    if not sections or len(sections) % targets:
        raise WeightsFormat(f"{len(sections)} trees are no whole number of iterations of {targets}")
    parsed = [read_tree(section, index, target=index % targets) for index, section in enumerate(sections)]
    notes: list[str] = []
    graph = Graph("lightgbm")
    declared, value = begin(graph, config, features=features, datatype=DataType.FP64)
    value = _prepared(graph, value, parsed, features=features, notes=notes)
    if re.search(r"^pandas_categorical:(?!null\s*$)(?!\[\]\s*$).", tail, re.MULTILINE):
        notes.append("trained on a DataFrame with categories: send their codes, in the order of training")
    trees = (tree.tree for tree in parsed)
    margin = add_ensemble(graph, value, trees, features=features, base=[0.0] * targets, dtype=np.float64)
    if header.flag("average_output"):
        margin = graph.add("Div", margin, graph.scalar(len(sections) // targets, np.float64))
    names = tuple(header.text("feature_names", "").split(" "))
    return finish(
        graph,
        margin,
        config,
        answer=answer,
        targets=targets,
        feature_names=names if len(names) == features else (),
        notes=tuple(notes),
        source=declared,
        kind=DataType.FP64,
        scale=scale,
    )


def _split(data: bytes) -> tuple[Section, list[Section], str]:
    """The header, one section a tree, and what follows the trees."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise WeightsFormat("the LightGBM model is not UTF-8 text") from error
    text = text.replace("\r\n", "\n")
    body, found, tail = text.partition("\nend of trees")
    if not body.startswith("tree\n") or not found:
        raise WeightsFormat("not a whole LightGBM model: 'tree' … 'end of trees' is missing", hint="use save_model")
    header, *trees = re.split(r"^Tree=\d+\n", body, flags=re.MULTILINE)
    return Section(header, "header"), [Section(tree, f"Tree={index}") for index, tree in enumerate(trees)], tail


def _objective(header: Section) -> tuple[Answer, float]:
    """What the objective makes of margins, and the slope of its sigmoid."""
    name, *options = header.text("objective", "").split(" ")
    answer = _ANSWERS.get(name)
    if answer is None:
        raise WeightsFormat(f"the LightGBM objective {quote(name)} is not supported")
    if answer is Answer.VALUE and "sqrt" in options:
        answer = Answer.SIGNED_SQUARE
    settings = dict(option.split(":", 1) for option in options if ":" in option)
    try:
        scale = float(settings.get("sigmoid", "1")) if answer in {Answer.BINARY, Answer.ONE_VS_ALL} else 1.0
    except ValueError as error:
        raise WeightsFormat("the sigmoid of the objective is not a number") from error
    if not 0 < scale < float("inf"):
        raise WeightsValues("the sigmoid of the objective must be positive")
    return answer, scale


def _prepared(graph: Graph, value: str, trees: list[TextTree], *, features: int, notes: list[str]) -> str:
    """`value` with categories cut to whole numbers, and with zeros missing where the model was trained so."""
    categorical = sorted(set().union(*(tree.columns[MissingAs.CATEGORY] for tree in trees)))
    zero = sorted(set().union(*(tree.columns[MissingAs.ZERO] for tree in trees)))
    other = set().union(*(tree.columns[MissingAs.OTHER] for tree in trees))
    if other & set(zero) or (other | set(zero)) & set(categorical):
        raise WeightsFormat("one column is split in ways that exclude each other")
    if categorical:
        notes.append(f"columns {categorical[:20]} are categories: send their codes as numbers")
        cut = graph.add("Mul", graph.add("Sign", value), graph.add("Floor", graph.add("Abs", value)))
        value = graph.add("Where", _mask(graph, categorical, features), cut, value)
    if zero:
        tiny = graph.add("LessOrEqual", graph.add("Abs", value), graph.scalar(ZERO, np.float64))
        missing = graph.add("And", tiny, _mask(graph, zero, features))
        value = graph.add("Where", missing, graph.scalar(float("nan"), np.float64), value)
    return value


def _mask(graph: Graph, columns: list[int], features: int) -> str:
    if columns[0] < 0 or columns[-1] >= features:
        raise WeightsFormat("a tree splits on a feature that the model does not have")
    mask = np.zeros((1, features), np.bool_)
    mask[0, columns] = True
    return graph.constant(mask)
