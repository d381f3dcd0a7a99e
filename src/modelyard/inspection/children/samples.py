"""Rows of a bundle's sample file, as one array an input: CSV with a header, JSON (rows, records, V2) or `.npy`."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.v2_values import NUMPY

MAX_ROWS: Final = 1000
_ROW_KEYS: Final = ("instances", "rows", "data", "records", "inputs")


class SampleUnusable(Exception):
    """The sample does not say rows for these inputs; the text says why."""


def read_sample(path: Path, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """At most `MAX_ROWS` rows. Columns that are no input (such as the answer) are left out.

    Raises:
        SampleUnusable: with the reason, for people.
    """
    try:
        if path.suffix == ".npy":
            return _from_rows(np.load(path, allow_pickle=False)[:MAX_ROWS], inputs)
        if path.suffix == ".csv":
            return _from_csv(path, inputs)
        if path.suffix == ".json":
            return _from_json(json.loads(path.read_bytes()), inputs)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OSError, csv.Error) as error:
        raise SampleUnusable(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    raise SampleUnusable(f"samples are read as .csv, .json or .npy, not {path.suffix or 'without a suffix'}")


def _from_csv(path: Path, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = [row for _, row in zip(range(MAX_ROWS + 1), csv.reader(lines), strict=False) if row]
    if not table:
        raise SampleUnusable("it is empty")
    head, body = table[0], table[1:]
    if {spec.name for spec in inputs} <= set(head):
        return _from_records([dict(zip(head, row, strict=False)) for row in body], inputs)
    if not _is_numbers(head):
        return _from_rows([row for row in body], inputs)  # noqa: C416  (rows stay lists of text)
    return _from_rows(table, inputs)


def _is_numbers(row: Sequence[str]) -> bool:
    try:
        [float(value) for value in row]
    except ValueError:
        return False
    return True


def _from_json(value: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:  # noqa: ANN401  (any JSON)
    if isinstance(value, Mapping):
        tensors = value.get("inputs")
        if isinstance(tensors, list) and tensors and isinstance(tensors[0], Mapping) and "datatype" in tensors[0]:
            given = {item["name"]: item for item in tensors}
            return {spec.name: _array(given[spec.name]["data"], spec, given[spec.name]["shape"]) for spec in inputs}
        for key in _ROW_KEYS:
            if isinstance(value.get(key), list):
                return _from_json(value[key], inputs)
        if {spec.name for spec in inputs} <= set(value):
            rows = [value] if not isinstance(value[inputs[0].name], list) else None
            return (
                _from_records(rows, inputs) if rows else {spec.name: _column(value[spec.name], spec) for spec in inputs}
            )
        raise SampleUnusable("it holds no rows")
    if not isinstance(value, list) or not value:
        raise SampleUnusable("it holds no rows")
    if isinstance(value[0], Mapping):
        return _from_records(value[:MAX_ROWS], inputs)
    return _from_rows(value[:MAX_ROWS] if isinstance(value[0], list) else [value], inputs)


def _from_records(rows: Sequence[Mapping[str, Any]], inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    return {spec.name: _column([row[spec.name] for row in rows], spec) for spec in inputs}


def _column(values: Any, spec: TensorSpec) -> Array:  # noqa: ANN401
    return _array(values, spec, [len(values), *spec.shape[1:]])


def _from_rows(rows: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:  # noqa: ANN401
    if len(inputs) == 1:
        wanted = inputs[0]
        inner = [size for size in wanted.shape[1:]]  # noqa: C416
        if len(inner) == 1 and inner[0] > 0 and len(rows[0]) == inner[0] + 1:
            rows = [list(row)[:-1] for row in rows]  # the answer is kept beside the row
        return {wanted.name: _array(rows, wanted, [len(rows), *(size if size > 0 else -1 for size in inner)])}
    if any(len(row) < len(inputs) for row in rows):
        raise SampleUnusable(f"a row has fewer values than the model has inputs ({len(inputs)})")
    return {spec.name: _column([row[index] for row in rows], spec) for index, spec in enumerate(inputs)}


def _array(values: Any, spec: TensorSpec, shape: Sequence[int]) -> Array:  # noqa: ANN401
    if spec.datatype is DataType.BYTES:
        flat = np.asarray(values, dtype=object).ravel()
        array = np.empty(len(flat), dtype=object)
        array[:] = [value if isinstance(value, bytes) else str(value).encode() for value in flat]
        return array.reshape(tuple(shape))
    kind = np.float64 if spec.datatype.is_float else NUMPY[spec.datatype]
    return np.asarray(values).astype(kind).reshape(tuple(shape))
