"""Rows to ask a model with: made from what it tells about its columns, so that they fall where it was trained.

Numbers are float64 as a caller's table would hold them; `as_sent` rounds them to what the contract carries, which is
what the converted model gets. The seed is fixed: the same file is always asked the same rows.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.tensors import DataType
from modelyard.inspection.children import bounds
from modelyard.inspection.children.described import Described, Reads, numpy_type
from modelyard.inspection.children.facts import Array, Column

SEED: Final = 20_250_101
ROWS: Final = 1024
_MARGIN: Final = 0.05
_STYLES: Final = ("spread", "positive", "counts")


def generate(described: Described, *, rows: int = ROWS, style: str = "spread") -> dict[str, Array]:
    """One array an input. Styles: "spread" over the known ranges, "positive" numbers only, "counts" from 0 to 20."""
    rng = np.random.default_rng(SEED)
    if described.reads is Reads.TEXT:
        return {"text": _texts(described.columns[0].values, rows, rng)}
    if described.reads is Reads.MAPPINGS:
        return {"features": _mappings(described.columns[0].values, rows, rng)}
    columns = [_column(column, rows, rng, style) for column in described.columns]
    if not described.one_input:
        return {
            described.input_name(index): values.reshape(-1, 1)
            for index, (column, values) in enumerate(zip(described.columns, columns, strict=True))
            if column.used
        }
    return {described.tensor_name: np.stack(columns, axis=1)}


def usable(described: Described, *, rows: int = ROWS) -> tuple[dict[str, Array], dict[str, Array]]:
    """Rows that the estimator answers with finite numbers, and the answers; raises what the last try raised."""
    last: Exception = ValueError("the model's answers are not finite for any of the rows tried")
    for style in _STYLES:
        arrays = generate(described, rows=rows, style=style)
        try:
            answers = described.ask(arrays)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (the library says in its own ways that rows do not suit the model)
            last = error
            continue
        if all(np.isfinite(answer).all() for answer in answers.values() if answer.dtype.kind == "f"):
            return arrays, answers
    raise last


def as_sent(described: Described, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same rows in the contract's datatypes: what a request carries."""
    return {
        item.name: arrays[item.name].astype(numpy_type(item.datatype))
        for item in described.inputs()
        if item.name in arrays
    }


def learn_missing(described: Described) -> None:
    """Find out by asking which columns may be missing (NaN): finite answers for rows that lack them."""
    if described.reads in {Reads.TEXT, Reads.MAPPINGS}:
        return
    floats = [
        index
        for index, column in enumerate(described.columns)
        if column.used and (column.datatype or described.floats).is_float
    ]
    if not floats or (described.reads is Reads.ARRAY and len(floats) < len(described.columns)):
        return
    base, _ = usable(described, rows=max(8, min(len(floats), 64)))
    if _answers_without(described, base, floats):
        described.allows_nan = frozenset(floats)
    elif described.reads is not Reads.ARRAY and len(floats) <= 64:  # noqa: PLR2004  (one call a column)
        described.allows_nan = frozenset(index for index in floats if _answers_without(described, base, [index]))


def with_missing(described: Described, arrays: Mapping[str, Array], chosen: list[int]) -> dict[str, Array]:
    """A copy in which row i lacks the i-th of the chosen columns, in turn."""
    changed = {name: array.copy() for name, array in arrays.items()}
    rows = len(next(iter(changed.values())))
    for row in range(rows):
        index = chosen[row % len(chosen)]
        if described.one_input:
            changed[described.tensor_name][row, index] = np.nan
        else:
            changed[described.input_name(index)][row, 0] = np.nan
    return changed


def is_made_for_missing(described: Described) -> bool:
    """Whether a step of the model exists to deal with missing values."""
    made_for = ("Imputer", "HistGradientBoosting", "MissingIndicator", "XGB", "LGBM")
    return any(name in type(part).__name__ for part in bounds.parts_of(described.estimator) for name in made_for)


def _answers_without(described: Described, base: Mapping[str, Array], chosen: list[int]) -> bool:
    try:
        answers = described.ask(with_missing(described, base, chosen))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (a refusal of NaN comes as any error)
        return False
    return all(np.isfinite(answer).all() for answer in answers.values() if answer.dtype.kind == "f")


def _column(column: Column, rows: int, rng: np.random.Generator, style: str) -> Array:
    if column.values:
        chosen = rng.integers(0, len(column.values), rows)
        kind = np.object_ if column.datatype is DataType.BYTES else np.asarray(column.values).dtype
        values = np.array(column.values, dtype=kind)[chosen]
        return _encoded(values) if kind is np.object_ else values
    if column.datatype is DataType.BYTES:
        return _encoded(np.array([f"value {number}" for number in rng.integers(0, 50, rows)], dtype=object))
    return _numbers(column, rows, rng, style)


def _numbers(column: Column, rows: int, rng: np.random.Generator, style: str) -> Array:
    if style == "counts":
        return rng.integers(0, 20, rows).astype(float)
    if column.low is None or column.high is None:
        values: Array = rng.normal(0, 1, rows) * rng.choice([1.0, 10.0], rows)
    else:
        reach = (column.high - column.low) * _MARGIN
        values = rng.uniform(column.low - reach, column.high + reach, rows)
        if column.high - column.low >= 4:  # noqa: PLR2004  (columns of whole numbers are common)
            values[: rows // 4] = np.round(values[: rows // 4])
    return np.abs(values) if style == "positive" else values


def _texts(words: list[Any] | None, rows: int, rng: np.random.Generator) -> Array:
    known = [*(words or ["some", "words", "of", "text"]), "unseen"]
    texts = [" ".join(known[index] for index in rng.integers(0, len(known), 12)) for _ in range(rows)]
    return _encoded(np.array(texts, dtype=object)).reshape(-1, 1)


def _mappings(names: list[Any] | None, rows: int, rng: np.random.Generator) -> Array:
    known = names or ["colour=red", "colour=blue", "size"]
    made = []
    for _ in range(rows):
        row: dict[str, object] = {}
        for index in rng.integers(0, len(known), 6):
            key, _, value = str(known[index]).partition("=")
            row[key] = value or round(float(rng.uniform(0, 10)), 3)
        made.append(json.dumps(row))
    return _encoded(np.array(made, dtype=object)).reshape(-1, 1)


def _encoded(values: Array) -> Array:
    return np.array([str(value).encode() for value in values], dtype=object)
