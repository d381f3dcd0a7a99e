"""From what people have (DataFrames, arrays, records) to V2 inputs, by one rule for SDK, command line and CSV.

A model with one input of width n takes a table of n columns, in order. A model with an input for each column takes them
by name, in any order; a column that is missing or not known is an error that lists what the model takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.client.tensors import Array, as_tensor
from modelyard.domain.errors.platform import InvalidRequest

Spec = Mapping[str, Any]
"""An input or output as V2 metadata gives it: name, datatype, shape."""
_TABLE_RANK = 2


def to_inputs(data: object, specs: Sequence[Spec]) -> dict[str, tuple[str, Array]]:
    """V2 inputs of `data` for a model with these inputs: name → (datatype, array).

    `data` is a DataFrame, an array, a list of rows, a list of records (column → value) or a mapping of columns.

    Raises:
        InvalidRequest: it does not fit; the text says what the model takes.
    """
    table = _columns_of(data)
    if table is not None and (len(specs) > 1 or set(table) == {specs[0]["name"]}):
        return _by_name(table, specs)
    if len(specs) != 1:
        return _by_position(np.asarray(data, dtype=object), specs)
    spec = specs[0]
    rows = np.column_stack([np.asarray(column) for column in table.values()]) if table is not None else data
    array = as_tensor(rows, datatype=spec["datatype"], name=spec["name"])
    return {spec["name"]: (spec["datatype"], _with_rank(array, spec))}


def _by_name(table: Mapping[str, Any], specs: Sequence[Spec]) -> dict[str, tuple[str, Array]]:
    names = [spec["name"] for spec in specs]
    missing = [name for name in names if name not in table]
    unknown = [name for name in table if name not in names]
    if missing or unknown:
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"not known: {', '.join(map(str, unknown))}"] if unknown else []
        raise InvalidRequest(
            "the columns do not fit the model; " + "; ".join(said), hint=f"it takes {', '.join(names)}"
        )
    return {
        spec["name"]: (
            spec["datatype"],
            _with_rank(as_tensor(table[spec["name"]], datatype=spec["datatype"], name=spec["name"]), spec),
        )
        for spec in specs
    }


def _by_position(rows: Array, specs: Sequence[Spec]) -> dict[str, tuple[str, Array]]:
    if rows.ndim != _TABLE_RANK or rows.shape[1] != len(specs):
        names = ", ".join(spec["name"] for spec in specs)
        raise InvalidRequest(
            f"the model takes {len(specs)} columns, the data has shape {list(rows.shape)}",
            hint=f"give a DataFrame or records with the columns {names}",
        )
    return _by_name({spec["name"]: rows[:, i] for i, spec in enumerate(specs)}, specs)


def _with_rank(array: Array, spec: Spec) -> Array:
    """One row given flat becomes a batch of one; a flat column becomes [n, 1] where the model has that shape."""
    rank = len(spec["shape"])
    if array.ndim == rank - 1:
        return array[:, np.newaxis] if spec["shape"][-1] == 1 else array[np.newaxis]
    return array


def _columns_of(data: object) -> dict[str, Any] | None:
    """Column name → values, when `data` names its columns."""
    if isinstance(data, Mapping):
        return {str(name): np.atleast_1d(np.asarray(values, dtype=object)) for name, values in data.items()}
    columns = getattr(data, "columns", None)
    if columns is not None and hasattr(data, "__getitem__"):
        return {str(name): np.asarray(data[name]) for name in columns}
    if isinstance(data, Sequence) and data and isinstance(data[0], Mapping):
        names = dict.fromkeys(name for row in data for name in row)
        holes = [i for i, row in enumerate(data) if len(row) != len(names)]
        if holes:
            raise InvalidRequest(
                f"record {holes[0]} lacks a column that others have", hint=f"give all of {list(names)}"
            )
        return {str(name): np.asarray([row[name] for row in data], dtype=object) for name in names}
    return None
