"""What a fitted estimator reads and answers, in the terms of a contract; and its own answers in those terms.

`describe` looks, `Described.ask` calls. The audit compares these answers with the ONNX form; the runtime for approved
originals serves them. Both go through here, so a served original answers exactly what the audit saw.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np

from modelyard.domain.contract import Labelling, LabelSource, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ProbeFailed, WeightsFormat
from modelyard.domain.tensors import VARIABLE, DataType, TensorSpec
from modelyard.inspection.children import bounds
from modelyard.inspection.children.facts import MAPPING_READERS, TEXT_READERS, Array, Column, Estimator, learn

MAX_COLUMN_INPUTS: Final = 512
"""A model fitted on a table with more columns gets one two-dimensional input instead of one a column."""

PROBABILITIES, CLASS_INDEX, PREDICTION, SCORES = "probabilities", "class_index", "prediction", "scores"
CLUSTER, TRANSFORMED = "cluster", "transformed"
_FLAT, _TABLE = 1, 2
_NUMPY: Final = {
    DataType.FP32: np.float32,
    DataType.FP64: np.float64,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.BYTES: np.object_,
}


class Reads(StrEnum):
    """How the estimator wants rows: an array, a table by column name, an array of mixed values, texts, mappings."""

    ARRAY = "array"
    TABLE = "table"
    MIXED = "mixed"
    TEXT = "text"
    MAPPINGS = "mappings"


@dataclass(slots=True)
class Described:
    """An estimator with its columns, its task and its classes.

    `floats` is the datatype of columns of plain numbers, `tensor_name` the input that holds them all where one does.
    """

    estimator: Estimator
    reads: Reads
    columns: list[Column]
    task: Task
    answers: tuple[str, ...]
    classes: list[Any] = field(default_factory=list)
    width: int = 1
    floats: DataType = DataType.FP32
    allows_nan: frozenset[int] = frozenset()
    tensor_name: str = "input"

    @property
    def one_input(self) -> bool:
        """Whether all columns travel in one tensor."""
        return self.reads in {Reads.ARRAY, Reads.TEXT, Reads.MAPPINGS} or (
            self.reads is Reads.TABLE and len(self.columns) > MAX_COLUMN_INPUTS
        )

    def inputs(self) -> tuple[TensorSpec, ...]:
        """The contract's inputs: one tensor [-1, columns], or one input [-1, 1] a column."""
        if not self.one_input:
            return tuple(self._column_input(index) for index, column in enumerate(self.columns) if column.used)
        if self.reads is Reads.TEXT:
            return (TensorSpec(name="text", datatype=DataType.BYTES, shape=(VARIABLE, 1)),)
        if self.reads is Reads.MAPPINGS:
            return (TensorSpec(name="features", datatype=DataType.BYTES, shape=(VARIABLE, 1)),)
        kind = self.columns[0].datatype if self.columns else None
        return (
            TensorSpec(
                name=self.tensor_name,
                datatype=kind or self.floats,
                shape=(VARIABLE, self.width),
                allows_nan=len(self.allows_nan) == len(self.columns) > 0,
            ),
        )

    def _column_input(self, index: int) -> TensorSpec:
        column = self.columns[index]
        kind = column.datatype or self.floats
        return TensorSpec(
            name=self.input_name(index),
            datatype=kind,
            shape=(VARIABLE, 1),
            categories=tuple(str(value) for value in column.values or ())
            if column.strict and column.datatype
            else None,
            allows_nan=kind.is_float and index in self.allows_nan,
        )

    def input_name(self, index: int) -> str:
        """The name of a column's input: its own, or `x<index>` when it has none."""
        key = self.columns[index].key
        return key if isinstance(key, str) else f"x{key}"

    def assemble(self, arrays: Mapping[str, Array]) -> Any:  # noqa: ANN401  (array, DataFrame or list: as the estimator wants)
        """What the estimator's methods take, from one array an input (BYTES hold `bytes`)."""
        if self.reads is Reads.ARRAY:
            array = arrays[self.tensor_name]
            return _texts(array) if array.dtype == object else array
        if self.reads is Reads.TEXT:
            return _texts(arrays["text"]).ravel()
        if self.reads is Reads.MAPPINGS:
            return [_mapping(value) for value in _texts(arrays["features"]).ravel()]
        if self.reads is Reads.MIXED:
            return self._mixed(arrays)
        return self._table(arrays)

    def _mixed(self, arrays: Mapping[str, Array]) -> Array:
        rows = len(next(iter(arrays.values())))
        mixed = np.zeros((rows, len(self.columns)), dtype=object)
        for index, column in enumerate(self.columns):
            if column.used:
                mixed[:, index] = _texts(arrays[self.input_name(index)]).ravel()
        return mixed

    def _table(self, arrays: Mapping[str, Array]) -> Any:  # noqa: ANN401
        import pandas as pd

        if self.one_input:
            return pd.DataFrame(arrays[self.tensor_name], columns=[column.key for column in self.columns])
        used = [(index, column) for index, column in enumerate(self.columns) if column.used]
        table = pd.DataFrame({column.key: _texts(arrays[self.input_name(index)]).ravel() for index, column in used})
        return table.astype({column.key: "category" for _, column in used if column.factor})

    def ask(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The estimator's own answers, one array an output name of `answers` (and the class index of a classifier)."""
        rows = self.assemble(arrays)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return {name: self._answer(name, rows) for name in self.answers}

    def _answer(self, name: str, rows: Any) -> Array:  # noqa: ANN401
        if name == PROBABILITIES:
            return _dense(self.estimator.predict_proba(rows))
        if name == CLASS_INDEX:
            return self._positions(np.asarray(self.estimator.predict(rows)))
        if name == SCORES:
            return _dense(self.estimator.decision_function(rows)).ravel()
        if name == TRANSFORMED:
            return _dense(self.estimator.transform(rows))
        answer = _dense(self.estimator.predict(rows))
        if name == CLUSTER or answer.dtype.kind in "iub":
            answer = answer.astype(np.int64)
        return answer.ravel() if answer.ndim == _TABLE and answer.shape[1] == 1 else answer

    def _positions(self, predicted: Array) -> Array:
        where = {value: index for index, value in enumerate(self.classes)}
        return np.array([where[value] for value in predicted.ravel().tolist()], dtype=np.int64)

    def labels(self, given: tuple[str, ...]) -> tuple[str, ...]:
        """Labels in class-index order: the user's when given (their number was checked), else the classes."""
        return given or tuple(str(value) for value in self.classes)

    def labelling(self) -> Labelling | None:
        """How the estimator itself decides the class."""
        return Labelling(source=CLASS_INDEX, rule=LabelSource.INDEX) if self.classes else None


def describe(estimator: Estimator) -> Described:
    """What `estimator` reads and answers.

    Raises:
        ProbeFailed: it is not fitted, or has no method that answers for new rows.
    """
    task, answers, classes = _answers(estimator)
    reads, columns = _reading(estimator)
    width = len(columns)
    if reads in {Reads.ARRAY, Reads.TABLE, Reads.MIXED}:
        bounds.check_features(estimator, _boosted_width(estimator, width))
    return Described(
        estimator=estimator, reads=reads, columns=columns, task=task, answers=answers, classes=classes, width=width
    )


def _boosted_width(estimator: Estimator, width: int) -> int:
    widths = [getattr(part, "n_features_in_", 0) for part in bounds.parts_of(estimator) if hasattr(part, "_predictors")]
    return max(widths, default=width)


def _answers(estimator: Estimator) -> tuple[Task, tuple[str, ...], list[Any]]:
    kind = _kind_of(estimator)
    if kind == "classifier":
        classes = getattr(estimator, "classes_", None)
        if isinstance(classes, np.ndarray) and classes.ndim == 1:
            proba = (PROBABILITIES,) if _has(estimator, "predict_proba") else ()
            return Task.CLASSIFICATION, (*proba, CLASS_INDEX), classes.tolist()
        return Task.OTHER, (PREDICTION,), []
    if kind == "outlier_detector" and _has(estimator, "decision_function") and _has(estimator, "predict"):
        return Task.OTHER, (PREDICTION, SCORES), []
    if kind == "clusterer" and _has(estimator, "predict"):
        return Task.CLUSTERING, (CLUSTER,), []
    if _has(estimator, "predict"):
        return (Task.REGRESSION if kind == "regressor" else Task.OTHER), (PREDICTION,), []
    if _has(estimator, "transform"):
        return Task.TRANSFORMATION, (TRANSFORMED,), []
    raise ProbeFailed(
        f"{quote(type(estimator).__name__)} cannot answer for new rows: it has neither predict nor transform",
        hint="save a fitted estimator that can, such as KMeans instead of DBSCAN",
    )


def _kind_of(estimator: Estimator) -> str:
    from sklearn.utils import get_tags

    try:
        return str(get_tags(estimator).estimator_type or "")
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsFormat("the estimator is not whole", hint="fit it, then save it again") from error


def _has(estimator: Estimator, method: str) -> bool:
    return callable(getattr(estimator, method, None))


def _reading(estimator: Estimator) -> tuple[Reads, list[Column]]:
    first = _first_step(estimator)
    if type(first).__name__ in TEXT_READERS:
        column = Column(key="text")
        learn(first, [column])
        return Reads.TEXT, [column]
    if type(first).__name__ in MAPPING_READERS:
        values = list(getattr(first, "feature_names_", []))
        return Reads.MAPPINGS, [Column(key="features", datatype=DataType.BYTES, values=values)]
    names = getattr(estimator, "feature_names_in_", None)
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise ProbeFailed(
            f"{quote(type(estimator).__name__)} is not fitted, or does not say how many columns it reads",
            hint="call fit before saving",
        )
    keys: list[str | int] = [str(name) for name in names] if names is not None else list(range(int(width)))
    columns = [Column(key=key) for key in keys]
    learn(estimator, columns)
    if names is not None:
        return Reads.TABLE, columns
    kinds = {column.datatype for column in columns if column.used}
    plain = kinds <= {None, DataType.INT64}
    if plain or kinds == {DataType.BYTES}:
        if plain:
            for column in columns:
                column.datatype = None
        return Reads.ARRAY, columns
    return Reads.MIXED, columns


def _first_step(estimator: Estimator) -> Estimator:
    for inner in ("best_estimator_", "estimator_"):
        if hasattr(estimator, inner):
            return _first_step(getattr(estimator, inner))
    steps = getattr(estimator, "steps", None)
    return _first_step(steps[0][1]) if steps else estimator


def _texts(array: Array) -> Array:
    """Object arrays of bytes as object arrays of text; others as they are."""
    if array.dtype != object:
        return array
    texts = np.empty(array.shape, dtype=object)
    flat = texts.reshape(-1)
    for index, value in enumerate(array.ravel()):
        flat[index] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return texts


def _mapping(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError('a row is one JSON object, such as {"city": "Oslo", "age": 4}')
    return value


def _dense(answer: Any) -> Array:  # noqa: ANN401  (array, sparse matrix, DataFrame or list of arrays)
    if isinstance(answer, list):
        return np.stack([np.asarray(item) for item in answer], axis=1)
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)


def numpy_type(kind: DataType) -> Any:  # noqa: ANN401  (numpy's own type of types)
    """The numpy type that holds a datatype here (BYTES: objects)."""
    return _NUMPY[kind]
