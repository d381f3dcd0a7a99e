"""What XGBoost and LightGBM models share: the one input, and the way from margins to answers."""

import json
from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from modelyard.domain.contract import Labelling, LabelSource, Task
from modelyard.domain.errors.uploads import BundleMismatch, ConfigInvalid
from modelyard.domain.tensors import VARIABLE, DataType
from modelyard.inspection.children.builders import Built
from modelyard.inspection.children.builders.graph import Graph
from modelyard.inspection.children.builders.tensor_config import (
    Declared,
    declared_tensor,
    require_class_count,
    require_fit,
)


class Answer(StrEnum):
    """How margins become answers."""

    VALUE = "value"
    EXP = "exp"
    SIGMOID = "sigmoid"
    STEP = "step"
    SOFTPLUS = "softplus"
    SIGNED_SQUARE = "signed_square"
    BINARY = "binary"
    HINGE = "hinge"
    SOFTMAX = "softmax"
    ONE_VS_ALL = "one_vs_all"


CLASSIFIERS = frozenset({Answer.BINARY, Answer.HINGE, Answer.SOFTMAX, Answer.ONE_VS_ALL})


def begin(graph: Graph, config: Mapping[str, object], *, features: int, datatype: DataType) -> tuple[Declared, str]:
    """The input [batch, features], named as the config says, in the type the trees compute in.

    A declared FP32 input of a float64 model (and the other way round) is widened or rounded in the graph.
    """
    declared = declared_tensor(config, "input") or Declared(name="x")
    require_fit("the input", declared.shape, (VARIABLE, features))
    wanted = declared.datatype or datatype
    if wanted not in {DataType.FP32, DataType.FP64}:
        raise ConfigInvalid(f"the input of boosted trees is FP32 or FP64, not {wanted}")
    value = graph.input(declared.name, wanted, (VARIABLE, features))
    return declared, value if wanted is datatype else graph.cast(value, datatype)


def finish(  # noqa: PLR0913 (one keyword an aspect of the answer)
    graph: Graph,
    margin: str,
    config: Mapping[str, object],
    *,
    answer: Answer,
    targets: int,
    feature_names: tuple[str, ...],
    notes: tuple[str, ...],
    source: Declared,
    kind: DataType = DataType.FP32,
    scale: float = 1.0,
) -> Built:
    """Publish `margin` [batch, targets] as `probabilities` or `prediction`; `scale` is the slope of a sigmoid."""
    is_classifier = answer in CLASSIFIERS
    width = 2 if answer in {Answer.BINARY, Answer.HINGE} else targets
    declared = declared_tensor(config, "output") or Declared(name="probabilities" if is_classifier else "prediction")
    if declared.name == source.name:
        raise BundleMismatch("input and output have the same name")
    require_fit("the output", declared.shape, (VARIABLE, width))
    value = _answer(graph, margin, answer, dtype=np.float64 if kind is DataType.FP64 else np.float32, scale=scale)
    wanted = declared.datatype or DataType.FP32 if is_classifier else declared.datatype or kind
    if wanted not in {DataType.FP32, DataType.FP64}:
        raise ConfigInvalid(f"the output of boosted trees is FP32 or FP64, not {wanted}")
    graph.output(value if wanted is kind else graph.cast(value, wanted), declared.name, wanted, (VARIABLE, width))
    labelling = None
    if is_classifier:
        require_class_count(config, width)
        labelling = Labelling(source=declared.name, rule=LabelSource.ARGMAX)
    metadata = {"feature_names": json.dumps(feature_names)} if feature_names else {}
    return Built(
        model=graph.model(metadata),
        task=Task.CLASSIFICATION if is_classifier else Task.REGRESSION,
        notes=notes,
        labelling=labelling,
        allows_nan=True,
        feature_names=feature_names,
    )


def _answer(graph: Graph, margin: str, answer: Answer, *, dtype: type, scale: float) -> str:
    """The value that `answer` makes of `margin`."""
    match answer:
        case Answer.VALUE:
            return margin
        case Answer.EXP:
            return graph.add("Exp", margin)
        case Answer.SOFTPLUS:
            return graph.add("Log", graph.add("Add", graph.add("Exp", margin), graph.scalar(1, dtype)))
        case Answer.SIGNED_SQUARE:
            return graph.add("Mul", margin, graph.add("Abs", margin))
        case Answer.SOFTMAX:
            return graph.add("Softmax", margin, axis=1)
        case Answer.STEP | Answer.HINGE:
            above = graph.add("Greater", margin, graph.scalar(0, dtype))
            value = graph.add("Where", above, graph.scalar(1, dtype), graph.scalar(0, dtype))
        case Answer.SIGMOID | Answer.BINARY | Answer.ONE_VS_ALL:
            scaled = margin if scale == 1.0 else graph.add("Mul", margin, graph.scalar(scale, dtype))
            value = graph.add("Sigmoid", scaled)
    if answer in {Answer.BINARY, Answer.HINGE}:
        return graph.add("Concat", graph.add("Sub", graph.scalar(1, dtype), value), value, axis=1)
    return value
