"""The label map: class index → label, dense from 0, each label once, each safe to show and to export."""

import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import FileTooLarge, LabelsInvalid
from modelyard.inspection.documents.json_text import read_bounded, read_json, read_text
from modelyard.inspection.policy import InspectionPolicy

_UNSHOWABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_JOINERS: Final = frozenset("\u200c\u200d")
_HINT: Final = 'such as {"0": "cat", "1": "dog"} in labels.json, or one label a line in labels.txt'
_COLUMNS: Final = 2


def read_labels(path: Path, name: str, policy: InspectionPolicy) -> tuple[str, ...]:
    """Labels in class-index order, from `.json` (object or list), `.txt` (one a line) or `.csv` (index,label).

    Raises:
        FileTooLarge: more than `labels_bytes`.
        LabelsInvalid: holes, duplicates, anything that is not a short printable text.
    """
    data = read_bounded(path, limit=policy.labels_bytes, what=quote(name), too_large=FileTooLarge)
    if name.lower().endswith(".json"):
        labels = _from_json(read_json(data, what=quote(name), policy=policy, refused=LabelsInvalid))
    else:
        text = read_text(data, what=quote(name), refused=LabelsInvalid)
        labels = _from_csv(text) if name.lower().endswith(".csv") else text.splitlines()
    return _checked(labels, policy)


def _from_json(value: object) -> Sequence[object]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise LabelsInvalid("labels must be an object or a list", hint=_HINT)
    return _in_order(value)


def _from_csv(text: str) -> Sequence[object]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise LabelsInvalid(f"the CSV cannot be read: {error}", hint=_HINT) from error
    if rows and [cell.strip().lower() for cell in rows[0]] in (["index", "label"], ["id", "label"], ["label"]):
        rows = rows[1:]
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    if any(len(row) != _COLUMNS for row in rows):
        raise LabelsInvalid("each line needs an index and a label", hint=_HINT)
    found: dict[str, object] = {}
    for index, label in rows:
        if index.strip() in found:
            raise LabelsInvalid(f"the index {quote(index)} stands twice", hint=_HINT)
        found[index.strip()] = label
    return _in_order(found)


def _in_order(found: dict[str, object]) -> Sequence[object]:
    """Values by key; the keys must be 0, 1, 2, … without a hole."""
    labels = []
    for index in range(len(found)):
        if str(index) not in found:
            raise LabelsInvalid(f"the index {index} is missing among {len(found)} labels", hint=_HINT)
        labels.append(found[str(index)])
    return labels


def _checked(labels: Sequence[object], policy: InspectionPolicy) -> tuple[str, ...]:
    if not 0 < len(labels) <= policy.labels:
        raise LabelsInvalid(f"{len(labels)} labels, from 1 to {policy.labels} are accepted", hint=_HINT)
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise LabelsInvalid(f"label {index} is not text", hint=_HINT, details=[{"row": index}])
        if not label.strip() or len(label) > policy.label_chars:
            raise LabelsInvalid(f"label {index} must have 1 to {policy.label_chars} characters", hint=_HINT)
        if any(unicodedata.category(one) in _UNSHOWABLE and one not in _JOINERS for one in label):
            raise LabelsInvalid(f"label {index} holds control or invisible characters: {quote(label)}", hint=_HINT)
        twin = seen.setdefault(unicodedata.normalize("NFC", label), index)
        if twin != index:
            raise LabelsInvalid(f"labels {twin} and {index} are both {quote(label)}", hint=_HINT)
    return tuple(str(label) for label in labels)
