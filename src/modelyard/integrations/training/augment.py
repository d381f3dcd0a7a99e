"""More rows to learn from: changed copies of given ones. What is judged by is never copied or changed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.integrations.training.tables import Table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array = np.ndarray[Any, Any]


def augmented(table: Table, wish: Mapping[str, Any], seed: int, *, is_choice: bool) -> "tuple[Table, Array]":
    """The table with `wish["copies"]` changed copies of every row behind it, and what each row counts.

    A row that was mixed with one of another class stands there twice, once for each class, by its part (mixup as in
    arXiv:1710.09412, for estimators that take weights); of numbers the targets themselves are mixed.

    Raises:
        InvalidRequest: the rows are no images of the size that is given.
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    frames, targets, weights = [table.rows], [table.target], [np.ones(len(table))]
    for _ in range(int(wish["copies"])):
        rows = table.rows.copy()
        _change_numbers(rows, table, wish, rng, is_choice=is_choice)
        _drop_words(rows, table, float(wish["drop_words"]), rng)
        if wish["mixup"]:
            mixed = _mixed(rows, table, float(wish["mixup"]), rng, is_choice=is_choice)
        else:
            mixed = [(rows, table.target, np.ones(len(table)))]
        for frame, target, weight in mixed:
            frames.append(frame)
            targets.append(target)
            weights.append(weight)
    whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else table.rows
    return Table(whole, np.concatenate(targets), table.is_matrix), np.concatenate(weights)


def _change_numbers(
    rows: "pd.DataFrame", table: Table, wish: Mapping[str, Any], rng: "np.random.Generator", *, is_choice: bool
) -> None:
    import numpy as np

    columns = [column for column in rows.columns if not table.is_text(column)]
    if not columns:
        return
    values = rows[columns].to_numpy(dtype=np.float32)
    if wish["swap"]:
        others = values[_partners(table.target, rng, is_choice=is_choice)]
        values = np.where(rng.random(values.shape) < float(wish["swap"]), others, values)
    if wish.get("image"):
        values = _moved(values, wish, rng)
    if wish["noise"]:
        spread = np.nanstd(values, axis=0)
        values = values + rng.normal(size=values.shape) * spread * float(wish["noise"])
    rows[columns] = values.astype(np.float32)


def _partners(target: "Array", rng: "np.random.Generator", *, is_choice: bool) -> "Array":
    """For each row the place of another: of the same class, or, of numbers, with a target nearby."""
    import numpy as np

    order = np.lexsort(
        (rng.random(len(target)), target if not is_choice else np.unique(target, return_inverse=True)[1])
    )
    partner = np.empty(len(target), dtype=int)
    if not is_choice:
        partner[order] = np.roll(order, 1)
        return partner
    for value in np.unique(target):
        places = np.flatnonzero(target == value)
        partner[places] = rng.permutation(places)
    return partner


def _moved(values: "Array", wish: Mapping[str, Any], rng: "np.random.Generator") -> "Array":
    """Images shifted, mirrored and with a square blanked; what comes in at an edge is the lowest value."""
    import numpy as np

    size = tuple(int(each) for each in wish["image"])
    if int(np.prod(size)) != values.shape[1]:
        raise InvalidRequest(
            f"rows of {values.shape[1]} numbers are no images of {' x '.join(map(str, size))}",
            details=[{"field": "parameters.recipe.augment.image", "expected": f"a size of {values.shape[1]} numbers"}],
        )
    images = values.reshape(len(values), *size).copy()
    blank, most = float(np.nanmin(values)), int(wish["shift"])
    if wish["flip"]:
        turned = rng.random(len(images)) < 0.5  # noqa: PLR2004  (half of them)
        images[turned] = images[turned, :, ::-1]
    if most:
        images = _shifted(images, rng.integers(-most, most + 1, (len(images), 2)), blank)
    if wish["erase"]:
        side = np.maximum(1, np.round(np.array(size[:2]) * float(wish["erase"]))).astype(int)
        tops, lefts = (rng.integers(0, size[axis] - side[axis] + 1, len(images)) for axis in (0, 1))
        for image, top, left in zip(images, tops, lefts, strict=True):
            image[top : top + side[0], left : left + side[1]] = blank
    return images.reshape(len(values), -1)


def _shifted(images: "Array", ways: "Array", blank: float) -> "Array":
    import numpy as np

    made = np.full_like(images, blank)
    height, width = images.shape[1:3]
    for down, right in np.unique(ways, axis=0):
        here = (ways == (down, right)).all(axis=1)
        if abs(down) >= height or abs(right) >= width:
            continue
        to_rows, from_rows = _overlap(int(down), height)
        to_columns, from_columns = _overlap(int(right), width)
        block = images[here][:, from_rows, from_columns]
        part = made[here]
        part[:, to_rows, to_columns] = block
        made[here] = part
    return made


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    return (slice(by, size), slice(0, size - by)) if by >= 0 else (slice(0, size + by), slice(-by, size))


def _drop_words(rows: "pd.DataFrame", table: Table, part: float, rng: "np.random.Generator") -> None:
    import pandas as pd

    if not part:
        return
    for column in rows.columns:
        if not table.is_text(column):
            continue
        kept = []
        for text in rows[column]:
            words = text.split()
            left = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= part]
            kept.append(" ".join(left or words))
        rows[column] = pd.Series(kept, dtype=object)


def _mixed(
    rows: "pd.DataFrame", table: Table, strength: float, rng: "np.random.Generator", *, is_choice: bool
) -> "list[tuple[pd.DataFrame, Array, Array]]":
    import numpy as np

    target = table.target
    partner = rng.permutation(len(target))
    drawn = rng.beta(strength, strength, len(target))
    share = np.maximum(drawn, 1 - drawn)
    made = rows.copy()
    columns = [column for column in rows.columns if not table.is_text(column)]
    values = rows[columns].to_numpy(dtype=np.float32)
    made[columns] = (values * share[:, None] + values[partner] * (1 - share)[:, None]).astype(np.float32)
    if not is_choice:
        return [(made, target * share + target[partner] * (1 - share), np.ones(len(target)))]
    return [(made, target, share), (made, target[partner], 1 - share)]
