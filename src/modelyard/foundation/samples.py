"""Rows that a person gives to judge a smaller model by: read from a file, cast to what the model takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.tensors import DataType, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEAST_ROWS: Final = 20
MOST_ROWS: Final = 100_000
_TARGET: Final = "target"


@dataclass(frozen=True, slots=True)
class Sample:
    """`inputs` by name, each with `rows` rows first; `target` is what is right for them, where that is known."""

    inputs: "dict[str, Array]"
    target: "Array | None"
    rows: int

    def part(self, begin: int, end: int) -> "dict[str, Array]":
        """Rows from `begin` to before `end`."""
        return {name: values[begin:end] for name, values in self.inputs.items()}


def read_sample(path: Path, specs: Sequence[TensorSpec], *, target: str | None = None) -> Sample:
    """The rows of `path`: `.npy` (a matrix), `.npz` (arrays by the names of the inputs) or `.csv` (columns).

    `target` names the column, or the array of an `.npz`, that holds the right answers.

    Raises:
        InvalidRequest: the file cannot be read, or does not fit the model; says what it wants.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise _wrong(f"{quote(path.name)} is of no kind that is read here", "a .csv, .npy or .npz file")
    try:
        columns, right = reader(path, specs, target)
    except (OSError, ValueError, KeyError) as error:
        raise _wrong(f"{quote(path.name)} cannot be read: {error}", "numbers only, one row a line") from error
    inputs = {spec.name: _fitted(columns[spec.name], spec) for spec in specs}
    rows = {len(values) for values in inputs.values()} | ({len(right)} if right is not None else set())
    if len(rows) != 1:
        raise _wrong(f"its columns have {sorted(rows)} rows", "as many rows in each")
    count = rows.pop()
    if not LEAST_ROWS <= count <= MOST_ROWS:
        raise _wrong(f"it has {count} rows", f"{LEAST_ROWS} to {MOST_ROWS} rows")
    return Sample(inputs, right, count)


def _read_npy(path: Path, specs: Sequence[TensorSpec], target: str | None) -> "tuple[dict[str, Array], Array | None]":
    import numpy as np

    if target is not None:
        raise _wrong("a .npy file has no columns to name", "a .csv or .npz file with the target in it")
    _one_input(specs)
    return {specs[0].name: np.load(path, allow_pickle=False)}, None


def _read_npz(path: Path, specs: Sequence[TensorSpec], target: str | None) -> "tuple[dict[str, Array], Array | None]":
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    missing = [spec.name for spec in specs if spec.name not in found]
    if missing and len(specs) == 1 and len(found.keys() - {target or _TARGET}) == 1:
        found[specs[0].name] = found[next(iter(found.keys() - {target or _TARGET}))]
    elif missing:
        raise _wrong(f"it has no array {quote(missing[0])}", f"arrays {', '.join(spec.name for spec in specs)}")
    if target is not None and target not in found:
        raise _wrong(f"it has no array {quote(target)}", f"one of {', '.join(sorted(found))}")
    return found, found.get(target or _TARGET)


def _read_csv(path: Path, specs: Sequence[TensorSpec], target: str | None) -> "tuple[dict[str, Array], Array | None]":
    import pandas as pd

    frame = pd.read_csv(path)
    right = None
    if target is not None:
        if target not in frame.columns:
            raise _wrong(f"it has no column {quote(target)}", f"one of {', '.join(map(str, frame.columns[:8]))}")
        right = frame.pop(target).to_numpy()
    if len(specs) == 1:
        return {specs[0].name: frame.to_numpy()}, right
    missing = [spec.name for spec in specs if spec.name not in frame.columns]
    if missing:
        raise _wrong(f"it has no column {quote(missing[0])}", f"columns {', '.join(spec.name for spec in specs)}")
    return {spec.name: frame[spec.name].to_numpy()[:, None] for spec in specs}, right


def _fitted(values: "Array", spec: TensorSpec) -> "Array":
    import numpy as np

    row = spec.shape[1:]
    wanted = tuple(size for size in row if size >= 0)
    if len(wanted) == len(row) and values.shape[1:] != row:
        if int(np.prod(values.shape[1:], dtype=int)) != int(np.prod(row, dtype=int)):
            raise _wrong(
                f"a row of {quote(spec.name)} has the shape {list(values.shape[1:])}", f"the shape {list(row)}"
            )
        values = values.reshape(len(values), *row)
    if spec.datatype is DataType.BYTES:
        return values.astype(object)
    try:
        return np.ascontiguousarray(values, dtype=_NUMPY[spec.datatype])
    except (ValueError, TypeError) as error:
        raise _wrong(f"{quote(spec.name)} holds what is no {spec.datatype}", "numbers") from error


_NUMPY: Final = {
    DataType.BOOL: "?",
    DataType.UINT8: "u1",
    DataType.UINT16: "u2",
    DataType.UINT32: "u4",
    DataType.UINT64: "u8",
    DataType.INT8: "i1",
    DataType.INT16: "i2",
    DataType.INT32: "i4",
    DataType.INT64: "i8",
    DataType.FP16: "f2",
    DataType.FP32: "f4",
    DataType.FP64: "f8",
}


def _one_input(specs: Sequence[TensorSpec]) -> None:
    if len(specs) != 1:
        raise _wrong(f"the model has {len(specs)} inputs", "a .npz file with an array for each")


def _wrong(what: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"the sample cannot be used: {what}", hint=expected, details=[{"field": "inputs.sample", "expected": expected}]
    )
