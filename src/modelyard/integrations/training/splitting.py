"""Rows to learn from and rows to judge by: equal rows on one side, classes in equal parts on both."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.integrations.training.tables import Table, wrong

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LEAST_OF_CLASS: Final = 4
_LEAST_HELD: Final = 5


def split(table: Table, part: float, seed: int, *, is_choice: bool) -> tuple[Table, Table]:
    """What is learned from and what is held out, about `part` of all.

    Raises:
        InvalidRequest: a class has too few rows for both.
    """
    import numpy as np

    folds = list(_folds(table, part, seed, is_choice=is_choice))
    held = np.sort(np.concatenate(folds))
    known = np.setdiff1d(np.arange(len(table)), held)
    if min(len(held), len(known)) < _LEAST_HELD:
        raise wrong("data", f"it leaves {len(known)} rows to learn from and {len(held)} to judge by", "more rows")
    return table.picked(known), table.picked(held)


def folds(table: Table, count: int, seed: int, *, is_choice: bool) -> "Iterator[tuple[Array, Array]]":
    """Places to learn from and to judge by, `count` times; every row is judged once, equal rows together."""
    import numpy as np
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    kind = StratifiedGroupKFold if is_choice else GroupKFold
    splitter = kind(count, shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(len(table)), table.target, groups(table))


def groups(table: Table) -> "Array":
    """A number for each row, the same for equal ones."""
    import numpy as np
    import pandas as pd

    hashes = pd.util.hash_pandas_object(table.rows, index=False).to_numpy()
    return np.asarray(np.unique(hashes, return_inverse=True)[1]).reshape(-1)


def _folds(table: Table, part: float, seed: int, *, is_choice: bool) -> "Iterator[Array]":
    """The held-out places, class by class."""
    import numpy as np

    rng = np.random.default_rng(seed)
    group = groups(table)
    first = np.unique(group, return_index=True)[1]
    classes = table.target[first] if is_choice else np.zeros(len(first))
    for value in np.unique(classes):
        if is_choice and (table.target == value).sum() < _LEAST_OF_CLASS:
            raise wrong(
                "data",
                f"the class {quote(str(value))} has {(table.target == value).sum()} rows",
                f"at least {_LEAST_OF_CLASS} rows of each class, or the task regression",
            )
        of_class = rng.permutation(np.flatnonzero(classes == value))
        count = min(max(1, round(part * len(of_class))), len(of_class) - 1)
        yield np.flatnonzero(np.isin(group, of_class[:count]))
