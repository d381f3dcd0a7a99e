"""What a teacher has answered before: a file beside the sample, row by row, as the job `batch-inference` writes it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.integrations.distilling.heads import Head, HeadKind

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def read_answers(path: Path, head: Head, contract: ModelContract, rows: int) -> "Array":
    """The answers in a `.csv` or `.jsonl` file: [rows, head.width], shares or numbers; where labels stand alone, ones.

    Raises:
        InvalidRequest: it cannot be read, has other columns, or not a row for each of the sample.
    """
    import numpy as np
    import pandas as pd

    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_json(path, lines=True)
    except (OSError, ValueError) as error:
        raise _wrong(
            f"{quote(path.name)} cannot be read: {quote(error, limit=200)}", "a .csv or .jsonl file"
        ) from error
    if len(frame) != rows:
        raise _wrong(f"it has {len(frame)} rows, and the sample has {rows}", f"{rows} rows, in the order of the sample")
    frame.columns = frame.columns.map(str)
    columns = _columns(head, contract)
    if head.kind is not HeadKind.LABEL and set(columns) <= set(frame.columns):
        values = frame[columns].to_numpy(dtype=float)
        if not np.isfinite(values).all():
            raise _wrong("some answers are missing", "whole rows")
        return values
    label = contract.labelling.output if contract.labelling is not None else ""
    if label not in frame.columns:
        wanted = ", ".join(columns[:6]) + (f"; or {label}" if label else "")
        raise _wrong(f"it has the columns {', '.join(frame.columns[:6])}", f"the columns {wanted}")
    texts = [str(each) for each in frame[label]]
    places = {text: place for place, text in enumerate(contract.labels)}
    unknown = next((each for each in texts if each not in places), None)
    if unknown is not None:
        raise _wrong(f"it holds the label {quote(unknown)}", f"labels {', '.join(contract.labels[:8])}")
    return np.eye(len(contract.labels))[[places[each] for each in texts]]


def _columns(head: Head, contract: ModelContract) -> list[str]:
    """The columns of the output that a student gives, as the client names them."""
    if head.kind is HeadKind.LABEL or head.width == 1:
        return [head.output.name]
    names = contract.labels if len(contract.labels) == head.width else tuple(map(str, range(head.width)))
    return [f"{head.output.name}_{name}" for name in names]


def _wrong(what: str, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"the answers cannot be used: {what}",
        hint=expected,
        details=[{"field": "inputs.answers", "expected": expected}],
    )
