"""A file of rows as a table: columns of numbers and texts, and the column that is to be predicted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, MissingExtra
from modelyard.domain.job_kinds.estimators import CLASSIFICATION, REGRESSION
from modelyard.domain.job_kinds.recipe import AUTO

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array = np.ndarray[Any, Any]

LEAST_ROWS: Final = 20
MOST_ROWS: Final = 5_000_000
_FEW_NUMBERS: Final = 20


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` has 32-bit numbers and texts (objects) in its columns; `target` one value a row, texts or numbers.

    `is_matrix`: columns have places, not names, and the model reads one array.
    """

    rows: "pd.DataFrame"
    target: "Array"
    is_matrix: bool

    def __len__(self) -> int:
        return len(self.target)

    def picked(self, places: "Array") -> "Table":
        """The rows at these places."""
        return Table(self.rows.iloc[places].reset_index(drop=True), self.target[places], self.is_matrix)

    def features(self) -> Any:  # noqa: ANN401  (an array where the columns have no names)
        """What an estimator is given."""
        return self.rows.to_numpy() if self.is_matrix else self.rows

    def is_text(self, column: object) -> bool:
        """Whether a column holds texts."""
        import pandas as pd

        return not pd.api.types.is_numeric_dtype(self.rows[column])


def read_table(path: Path, target: str, *, task: str = AUTO, name: str = "data") -> Table:
    """The rows of `path`: `.csv`, `.parquet`, `.jsonl` (columns by name) or `.npz` (one array beside the target).

    `name` is the job's input, for errors.

    Raises:
        InvalidRequest: it cannot be read, has no such column, or too few rows.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_lines, ".npz": _read_arrays}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise wrong(
            name, f"{quote(path.name)} is of no kind that is read here", "a .csv, .jsonl, .npz or .parquet file"
        )
    try:
        frame, right = reader(path, target, name)
    except (OSError, ValueError, KeyError) as error:
        raise wrong(name, f"{quote(path.name)} cannot be read: {quote(error, limit=200)}", "one row a line") from error
    is_known = frame.notna().any(axis=1).to_numpy() & _known(right)
    frame, right = frame[is_known].reset_index(drop=True), right[is_known]
    if not LEAST_ROWS <= len(frame) <= MOST_ROWS:
        raise wrong(name, f"it has {len(frame)} rows with a target", f"{LEAST_ROWS} to {MOST_ROWS} rows")
    is_matrix = path.suffix.lower() == ".npz"
    return Table(_typed(frame, name), _target(right, task, name), is_matrix)


def task_of(table: Table, wish: str) -> str:
    """What is predicted: as wished, else by the target: texts and a few whole numbers are classes."""
    import numpy as np

    if wish != AUTO:
        return wish
    if table.target.dtype == object:
        return CLASSIFICATION
    is_whole = bool((table.target == np.round(table.target)).all())
    return CLASSIFICATION if is_whole and len(np.unique(table.target)) <= _FEW_NUMBERS else REGRESSION


def wrong(name: str, what: str, expected: str) -> InvalidRequest:
    """An error about the job's input `name`."""
    details: Any = [{"field": f"inputs.{name}", "expected": expected}]
    return InvalidRequest(f"the {name} cannot be used: {what}", details=details)


def _read_csv(path: Path, target: str, name: str) -> "tuple[pd.DataFrame, Array]":
    import pandas as pd

    return _parted(pd.read_csv(path), target, name)


def _read_lines(path: Path, target: str, name: str) -> "tuple[pd.DataFrame, Array]":
    import pandas as pd

    return _parted(pd.read_json(path, lines=True, convert_dates=False), target, name)


def _read_parquet(path: Path, target: str, name: str) -> "tuple[pd.DataFrame, Array]":
    import pandas as pd

    try:
        return _parted(pd.read_parquet(path), target, name)
    except ImportError as error:
        raise MissingExtra("Parquet needs a library", hint="pip install pyarrow, or give a .csv") from error


def _parted(frame: "pd.DataFrame", target: str, name: str) -> "tuple[pd.DataFrame, Array]":
    frame.columns = frame.columns.map(str)
    if target not in frame.columns:
        raise wrong(name, f"it has no column {quote(target)}", f"one of {', '.join(frame.columns[:8])}")
    right = frame.pop(target).to_numpy()
    if not len(frame.columns):
        raise wrong(name, "it has no other column than the target", "columns to learn from")
    return frame, right


def _read_arrays(path: Path, target: str, name: str) -> "tuple[pd.DataFrame, Array]":
    import numpy as np
    import pandas as pd

    with np.load(path, allow_pickle=False) as arrays:
        found = {each: arrays[each] for each in arrays.files}
    right = found.pop(target, None)
    if right is None or len(found) != 1:
        raise wrong(name, f"it holds {', '.join(sorted(found))}", f"the array {quote(target)} and one other, the rows")
    [rows] = found.values()
    if len(rows) != len(right) or right.ndim != 1 or rows.dtype.kind not in "biuf":
        shapes = f"the rows have the shape {list(rows.shape)}, the target {list(right.shape)}"
        raise wrong(name, shapes, "numbers, as many rows as targets")
    return pd.DataFrame(rows.reshape(len(rows), -1)), right


def _typed(frame: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """32-bit numbers and texts; a missing text is an empty one, which is what a request can say."""
    import numpy as np
    import pandas as pd

    made: dict[Any, Any] = {}
    for column in frame.columns:
        values = frame[column]
        if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
            numbers = values.to_numpy(dtype=np.float32, na_value=np.nan)
            if np.isinf(numbers).any():
                raise wrong(name, f"the column {quote(column)} holds numbers beyond 32 bits", "finite numbers")
            made[column] = numbers
        else:
            texts = np.array(
                ["" if missing else str(each) for each, missing in zip(values, values.isna(), strict=True)]
            )
            made[column] = texts.astype(object)
    return pd.DataFrame(made, columns=frame.columns)


def _known(right: "Array") -> "Array":
    import numpy as np
    import pandas as pd

    return np.asarray(~pd.isna(right))


def _target(right: "Array", task: str, name: str) -> "Array":
    import numpy as np

    kind = right.dtype.kind
    if task == REGRESSION and kind not in "biuf":
        raise wrong(name, "the target holds texts", "numbers, or the task classification")
    if kind in "biu":
        return right.astype(np.int64)
    if kind == "f":
        is_whole = bool((right == np.round(right)).all())
        if task == CLASSIFICATION and not is_whole:
            raise wrong(name, "the target holds fractions", "classes, or the task regression")
        return right.astype(np.int64) if is_whole and task != REGRESSION else right.astype(float)
    return np.array([str(each) for each in right], dtype=object)
