"""What a fitted estimator tells about the columns it was trained on: their kind, their values, their range.

Nothing is declared in a pickle; encoders know their categories, scalers their means, trees their thresholds. From this
follow the contract's inputs and the rows on which original and conversion are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelyard.domain.tensors import DataType

Estimator = Any  # scikit-learn ships no types
Array = np.ndarray[Any, Any]
_SPREAD: Final = 3.0
_KEEPS_COLUMNS: Final = (
    "SimpleImputer", "KNNImputer", "IterativeImputer", "StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler",
    "PowerTransformer", "QuantileTransformer", "FunctionTransformer", "FrozenEstimator",
)  # fmt: skip
TEXT_READERS: Final = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")
MAPPING_READERS: Final = ("DictVectorizer", "FeatureHasher")


@dataclass(slots=True)
class Column:
    """One column: `key` as the estimator knows it, values it may take (`strict`: and no other), range of numbers.

    `factor`: the estimator wants it as a column of pandas' categorical type. `used`: some step reads it.
    """

    key: str | int
    datatype: DataType | None = None
    values: list[Any] | None = None
    strict: bool = False
    low: float | None = None
    high: float | None = None
    whole: bool = False
    used: bool = True
    factor: bool = False

    def span(self, low: float, high: float) -> None:
        """Take a range if none is known yet and this one is a range."""
        if self.low is None and np.isfinite(low) and np.isfinite(high) and low <= high:
            self.low, self.high = float(low), float(high)


def learn(estimator: Estimator, columns: Sequence[Column]) -> None:
    """Fill in what `estimator`, which reads `columns` in this order, knows about them."""
    name = type(estimator).__name__
    if name == "Pipeline":
        _learn_pipeline(estimator, columns)
    elif name == "ColumnTransformer":
        _learn_columns(estimator, columns)
    elif name == "FeatureUnion":
        for _, part in estimator.transformer_list:
            learn(part, columns)
    elif name in TEXT_READERS and len(columns) == 1:
        columns[0].datatype = DataType.BYTES
        columns[0].values = list(getattr(estimator, "vocabulary_", {}))[:500] or None
    else:
        _learn_simple(estimator, columns)


def _learn_pipeline(pipeline: Estimator, columns: Sequence[Column]) -> None:
    for _, step in pipeline.steps:
        if step is None or isinstance(step, str):
            continue
        learn(step, columns)
        if type(step).__name__ not in _KEEPS_COLUMNS or _width_changes(step, columns):
            return


def _width_changes(step: Estimator, columns: Sequence[Column]) -> bool:
    width = getattr(step, "n_features_in_", len(columns))
    statistics = getattr(step, "statistics_", None)
    return (
        width != len(columns)
        or bool(getattr(step, "add_indicator", False))
        or (statistics is not None and len(statistics) != len(columns))
    )


def _learn_columns(transformer: Estimator, columns: Sequence[Column]) -> None:
    indices = transformer._transformer_to_input_indices  # noqa: SLF001  (no public way to resolved columns)
    for column in columns:
        column.used = False
    for name, part, _ in transformer.transformers_:
        chosen = [columns[index] for index in indices.get(name, []) if index < len(columns)]
        if isinstance(part, str) and part == "drop":
            continue
        for column in chosen:
            column.used = True
        if not isinstance(part, str):
            learn(part, chosen)


def _learn_simple(estimator: Estimator, columns: Sequence[Column]) -> None:
    for inner in ("best_estimator_", "estimator_", "regressor_", "estimator"):
        nested = getattr(estimator, inner, None)
        if nested is not None and getattr(nested, "n_features_in_", None) == len(columns):
            learn(nested, columns)
    for group in ("estimators_", "calibrated_classifiers_"):
        for nested in np.ravel(np.asarray(getattr(estimator, group, []), dtype=object))[:8]:
            if getattr(nested, "n_features_in_", None) == len(columns):
                learn(nested, columns)
    _learn_factors(estimator, columns)
    _learn_categories(estimator, columns)
    _learn_imputed(estimator, columns)
    for low, high in _ranges(estimator, len(columns)):
        for column, lowest, highest in zip(columns, low, high, strict=True):
            column.span(lowest, highest)


def _learn_factors(estimator: Estimator, columns: Sequence[Column]) -> None:
    """Histogram boosting keeps an encoder of its own for the categorical columns of the table it was fitted on."""
    preprocessor = estimator.__dict__.get("_preprocessor")
    if preprocessor is None:
        return
    learn(preprocessor, columns)
    for column in columns:
        column.factor = column.values is not None


def _learn_categories(estimator: Estimator, columns: Sequence[Column]) -> None:
    categories = getattr(estimator, "categories_", None)
    if not isinstance(categories, list) or len(categories) != len(columns):
        return
    strict = getattr(estimator, "handle_unknown", "") == "error"
    for column, known in zip(columns, categories, strict=True):
        if known is None or column.values is not None:
            continue
        values = [value for value in np.asarray(known).tolist() if value is not None and value == value]  # noqa: PLR0124
        column.values, column.strict = values, strict and len(values) == len(known)
        column.datatype = _datatype_of(values)


def _datatype_of(values: list[Any]) -> DataType | None:
    if any(isinstance(value, str) for value in values):
        return DataType.BYTES
    if values and all(isinstance(value, bool) for value in values):
        return DataType.BOOL
    if values and all(isinstance(value, int) for value in values):
        return DataType.INT64
    return None


def _learn_imputed(estimator: Estimator, columns: Sequence[Column]) -> None:
    statistics = getattr(estimator, "statistics_", None)
    if not isinstance(statistics, np.ndarray) or statistics.shape != (len(columns),):
        return
    for column, value in zip(columns, statistics.tolist(), strict=True):
        if isinstance(value, str):
            column.datatype = DataType.BYTES
        elif isinstance(value, int | float) and not isinstance(value, bool):
            column.span(value - abs(value) - 1, value + abs(value) + 1)


def _ranges(estimator: Estimator, width: int) -> list[tuple[Array, Array]]:
    """Every pair of lowest and highest values a column that the estimator's state shows, best first."""
    found: list[tuple[Array, Array]] = []

    def take(low: object, high: object) -> None:
        first, last = np.asarray(low), np.asarray(high)
        if first.shape == last.shape == (width,) and first.dtype.kind in "fiu":
            found.append((first.astype(float), last.astype(float)))

    get = estimator.__dict__.get
    take(get("data_min_"), get("data_max_"))
    for centre, scale in (("mean_", "scale_"), ("center_", "scale_")):
        if get(centre) is not None and get(scale) is not None:
            take(get(centre) - _SPREAD * get(scale), get(centre) + _SPREAD * get(scale))
    if get("max_abs_") is not None:
        take(-get("max_abs_"), get("max_abs_"))
    for points in ("_fit_X", "support_vectors_", "cluster_centers_", "centroids_", "X_train_", "quantiles_", "_X_fit"):
        value = get(points)
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == width and len(value):  # noqa: PLR2004
            take(np.nanmin(value, axis=0), np.nanmax(value, axis=0))
    theta, variance = get("theta_"), get("var_")
    if isinstance(theta, np.ndarray) and isinstance(variance, np.ndarray):
        spread = _SPREAD * np.sqrt(variance.max(axis=0))
        take(theta.min(axis=0) - spread, theta.max(axis=0) + spread)
    for low, high in _threshold_ranges(estimator, width):
        take(low, high)
    return found


def _threshold_ranges(estimator: Estimator, width: int) -> list[tuple[Array, Array]]:
    """From the thresholds of trees, the edges of bins and the knots of splines."""
    get = estimator.__dict__.get
    edges: list[Array] | None = None
    tree = get("tree_")
    if tree is not None:
        inner = tree.children_left >= 0
        edges = [tree.threshold[inner & (tree.feature == index)] for index in range(width)]
    elif get("_bin_mapper") is not None:
        edges = [np.asarray(item, dtype=float) for item in get("_bin_mapper").bin_thresholds_]
    elif get("bin_edges_") is not None:
        edges = [np.asarray(item, dtype=float) for item in get("bin_edges_")]
    elif get("bsplines_") is not None:
        edges = [np.asarray(item.t, dtype=float)[item.k : len(item.t) - item.k] for item in get("bsplines_")]
    if edges is None or len(edges) != width:
        return []
    low = np.array([_edge(item, np.min, -1.0) for item in edges])
    high = np.array([_edge(item, np.max, 1.0) for item in edges])
    margin = np.maximum((high - low) * 0.1, 1e-3) if get("bsplines_") is None else 0.0
    return [(low - margin, high + margin)]


def _edge(values: Array, of: Any, nothing: float) -> float:  # noqa: ANN401  (a numpy reduction)
    finite = values[np.isfinite(values)]
    return float(of(finite)) if len(finite) else nothing
