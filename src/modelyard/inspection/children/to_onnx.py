"""An estimator becomes an ONNX graph by skl2onnx, with the names and shapes of the contract at its border."""

import logging
import warnings
from typing import Any, Final

import onnx
from onnx import TensorProto

from modelyard.domain.tensors import DataType
from modelyard.inspection.children import graph_edit
from modelyard.inspection.children.convertible import convertible_form, repair_converters
from modelyard.inspection.children.described import (
    CLASS_INDEX,
    CLUSTER,
    PREDICTION,
    PROBABILITIES,
    SCORES,
    TRANSFORMED,
    Described,
    Reads,
)

OPSET: Final = {"": 21, "ai.onnx.ml": 3}
"""What the installed runtime surely has; newer sets bring nothing that these graphs use."""


class NotConvertible(Exception):
    """skl2onnx cannot express a step; the text says which."""


def to_onnx(described: Described) -> onnx.ModelProto:
    """The graph of `described`, numbers in its `floats`.

    Raises:
        NotConvertible: with the library's reason.
    """
    import skl2onnx

    logging.getLogger("skl2onnx").setLevel(logging.CRITICAL)
    repair_converters()
    joined = not described.one_input and not _selects_columns(described.estimator)
    try:
        with warnings.catch_warnings(), convertible_form(described.estimator):
            warnings.simplefilter("ignore")
            model: onnx.ModelProto = skl2onnx.to_onnx(
                _converted(described.estimator),
                initial_types=_initial_types(described, joined=joined),
                options=_options(described),
                target_opset=OPSET,
            )
        if joined:
            names = [described.input_name(index) for index in range(len(described.columns))]
            graph_edit.join_columns(model, _JOINED, names, kind=graph_edit.V2_TO_ONNX[described.floats])
        else:
            graph_edit.name_inputs(model, [name for name, _ in _initial_types(described, joined=False)])
        _name_outputs(described, model)
        graph_edit.use_known_locale(model)
    except MemoryError:
        raise
    except Exception as error:
        raise NotConvertible(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    return model


_JOINED: Final = "modelyard_columns"


def decides_by_threshold(estimator: Any) -> bool:  # noqa: ANN401
    """Whether the class is chosen by a threshold of its own, not by the largest probability."""
    return type(estimator).__name__ == "FixedThresholdClassifier"


def _converted(estimator: Any) -> Any:  # noqa: ANN401
    """What skl2onnx is given: it knows no thresholds, which are added afterwards."""
    return getattr(estimator, "estimator_", estimator.estimator) if decides_by_threshold(estimator) else estimator


def _threshold_of(estimator: Any) -> tuple[int, float]:  # noqa: ANN401
    """The position of the class that the threshold is for, and the probability from which on it is chosen."""
    if estimator.response_method == "decision_function":
        raise NotConvertible("a threshold on decision values")
    threshold = 0.5 if estimator.threshold == "auto" else estimator.threshold
    chosen = estimator.pos_label
    classes = estimator.classes_.tolist()
    return (classes.index(chosen) if chosen is not None else 1), float(threshold)


def _selects_columns(estimator: Any) -> bool:  # noqa: ANN401
    for inner in ("best_estimator_", "estimator_", "regressor_"):
        nested = getattr(estimator, inner, None)
        if nested is not None:
            return _selects_columns(nested)
    if type(estimator).__name__ == "Pipeline":
        return _selects_columns(estimator.steps[0][1])
    if type(estimator).__name__ == "FeatureUnion":
        return any(_selects_columns(part) for _, part in estimator.transformer_list)
    return type(estimator).__name__ == "ColumnTransformer"


def _initial_types(described: Described, *, joined: bool) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    kinds = {
        DataType.FP32: FloatTensorType,
        DataType.FP64: DoubleTensorType,
        DataType.INT64: Int64TensorType,
        DataType.BYTES: StringTensorType,
        DataType.BOOL: BooleanTensorType,
    }
    if described.reads is Reads.MAPPINGS:
        raise NotConvertible(f"{type(described.estimator).__name__} reads mappings, which ONNX inputs cannot carry")
    if joined:
        if any(column.datatype not in {None, DataType.FP32, DataType.FP64} for column in described.columns):
            raise NotConvertible("columns of text and of numbers go into one step")
        return [(_JOINED, kinds[described.floats]([None, len(described.columns)]))]
    if described.reads is Reads.MIXED:
        return [
            (described.input_name(index), kinds[column.datatype or described.floats]([None, 1]))
            for index, column in enumerate(described.columns)
        ]
    return [(item.name, kinds[item.datatype]([None, *item.shape[1:]])) for item in described.inputs()]


def _options(described: Described) -> dict[int, dict[str, Any]] | None:
    if PROBABILITIES not in described.answers:
        return None
    return {id(_final(described.estimator)): {"zipmap": False}}


def _final(estimator: Any) -> Any:  # noqa: ANN401
    """The last step, out of pipelines and searches."""
    final = _converted(estimator)
    while type(final).__name__ in {"Pipeline", "GridSearchCV", "RandomizedSearchCV"}:
        final = final.steps[-1][1] if hasattr(final, "steps") else final.best_estimator_
    return final


def _can_tie(described: Described) -> bool:
    """Whether classes often have exactly the same probability, as where trees vote: the first of them is chosen."""
    kind = type(_final(described.estimator)).__name__
    return PROBABILITIES in described.answers and kind in {"RandomForestClassifier", "ExtraTreesClassifier"}


def _name_outputs(described: Described, model: onnx.ModelProto) -> None:
    """Outputs in the order and with the names of `described.answers`, nothing else."""
    graph_edit.drop_zipmaps(model)
    floats = graph_edit.V2_TO_ONNX[described.floats]
    old = [output.name for output in model.graph.output]
    kinds = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
    made: list[str] = []
    for name in described.answers:
        if name == CLASS_INDEX and decides_by_threshold(described.estimator):
            position, threshold = _threshold_of(described.estimator)
            graph_edit.threshold_position(model, old[0], name, PROBABILITIES, position=position, threshold=threshold)
        elif name == CLASS_INDEX and _can_tie(described):
            graph_edit.first_of_largest(model, old[0], name, PROBABILITIES)
        elif name == CLASS_INDEX:
            graph_edit.classes_to_positions(model, old[0], name, described.classes)
        elif name == PROBABILITIES:
            graph_edit.rename_output(
                model, old[1], name, shape=(None, len(described.classes)), kind=kinds[old[1]] or floats
            )
        elif name == SCORES:
            graph_edit.flatten_output(model, old[1], name, kind=kinds[old[1]] or floats)
        elif name == CLUSTER or (name == PREDICTION and SCORES in described.answers):
            graph_edit.cast_output(model, old[0], name, kind=TensorProto.INT64)
        elif name == PREDICTION:
            _name_prediction(described, model, old[0], kinds[old[0]] or floats)
        elif name == TRANSFORMED:
            shape = graph_edit.shape_of(model.graph.output[0]) or (-1, -1)
            width = shape[-1] if len(shape) > 1 and shape[-1] > 0 else None
            graph_edit.rename_output(model, old[0], name, shape=(None, width), kind=kinds[old[0]] or floats)
        made.append(name)
    by_name = {output.name: output for output in model.graph.output}
    ordered = [by_name[name] for name in made]
    del model.graph.output[:]
    model.graph.output.extend(ordered)


def _name_prediction(described: Described, model: onnx.ModelProto, old: str, kind: int) -> None:
    import numpy as np

    from modelyard.inspection.children.rows import usable

    _, answers = usable(described, rows=4)
    answer = np.asarray(answers[PREDICTION])
    if answer.ndim == 1 and answer.dtype.kind == "i":
        graph_edit.cast_output(model, old, PREDICTION, kind=TensorProto.INT64)
    elif answer.ndim == 1:
        graph_edit.flatten_output(model, old, PREDICTION, kind=kind)
    else:
        graph_edit.rename_output(model, old, PREDICTION, shape=(None, *answer.shape[1:]), kind=kind)
