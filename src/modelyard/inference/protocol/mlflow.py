"""MLflow's scoring dialect: `/invocations` with exactly one of four members, or CSV, to `{"predictions": …}`.

Columns that the model does not know are dropped, as MLflow does when it enforces a signature. `params` is accepted and
has no effect: served models take none.
"""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadData, InferenceInvalid
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.careful import load_document
from modelyard.inference.protocol.examples import example_instances
from modelyard.inference.protocol.options import kind_of
from modelyard.inference.protocol.request import Encoded, InferRequest
from modelyard.inference.protocol.rows import from_columns, from_frame, from_instances, from_records
from modelyard.inference.protocol.signature import Signature
from modelyard.inference.protocol.v1 import predictions

Array = np.ndarray[Any, Any]
_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read_mlflow(body: bytes, *, is_csv: bool = False, signature: Signature) -> InferRequest:
    """The request in an `/invocations` body: JSON, or CSV with a header line where `is_csv`.

    Raises:
        InferenceInvalid: the request cannot be given to the model. The example is an `instances` body.
    """
    try:
        if is_csv:
            return from_frame(_read_csv(body, signature), signature, True)  # noqa: FBT003
        document = load_document(body, signature)
        given = [form for form in _FORMS if form in document] if isinstance(document, dict) else []
        if len(given) != 1:
            raise signature.refusal(
                InferenceInvalid,
                f"the body must be an object with exactly one of {', '.join(_FORMS)}",
                expected=list(_FORMS),
                received=given if isinstance(document, dict) else kind_of(document),
            )
        return _read_form(given[0], document[given[0]], signature)
    except InferenceInvalid as error:
        error.example = example_instances(signature.example)
        raise


def write_mlflow(request: InferRequest, outputs: Mapping[str, Array], *, signature: Signature) -> Encoded:
    """The answer: one output as a list, several as records, as MLflow writes an array and a DataFrame."""
    return Encoded(msgspec.json.encode({"predictions": predictions(request, outputs, signature)}))


def _read_form(form: str, value: object, signature: Signature) -> InferRequest:
    if form == "dataframe_split":
        return from_frame(_split(value, signature), signature, True)  # noqa: FBT003
    if form == "dataframe_records":
        if not isinstance(value, list) or not value or not isinstance(value[0], dict):
            raise _wrong(signature, form, "a list of objects by column name", value)
        return from_records(value, signature, extra_allowed=True)
    if form == "instances":
        return from_instances(value, signature)
    if isinstance(value, dict):
        return from_columns(value, signature)
    return from_instances(value, signature)


def _split(value: object, signature: Signature) -> dict[str, list[Any]]:
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list) or not isinstance(columns, list) or not data:
        raise _wrong(signature, "dataframe_split", 'an object with "columns" and rows of "data"', value)
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns):
        raise _wrong(signature, "dataframe_split.columns", "names, each once", columns)
    return _transpose(columns, data, signature)


def _transpose(columns: list[str], rows: list[Any], signature: Signature) -> dict[str, list[Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            got = f"{len(row)} values" if isinstance(row, list) else kind_of(row)
            raise signature.refusal(
                BadData,
                f"row {number} is {got}, there are {len(columns)} columns",
                row=number,
                expected=f"{len(columns)} values",
                received=got,
            )
    return {name: [row[at] for row in rows] for at, name in enumerate(columns)}


def _read_csv(body: bytes, signature: Signature) -> dict[str, list[Any]]:
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise signature.refusal(InferenceInvalid, "the body is not CSV in UTF-8", expected="CSV") from error
    if len(lines) < 2 or len(set(lines[0])) != len(lines[0]):  # noqa: PLR2004  (a header and a row)
        raise signature.refusal(
            InferenceInvalid, "CSV needs a header line with each column once, and a row", expected="a header and rows"
        )
    frame = _transpose(lines[0], lines[1:], signature)
    return {name: [_cell(text, _kind(name, signature)) for text in column] for name, column in frame.items()}


def _kind(name: str, signature: Signature) -> DataType:
    one = signature.inputs.get(name) or signature.single
    return one.kind if one is not None else DataType.BYTES


def _cell(text: str, kind: DataType) -> object:
    """A CSV cell as the JSON value it stands for; what cannot be read stays text and is refused as such."""
    if kind is DataType.BYTES:
        return text
    if kind is DataType.BOOL:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if not text.strip():
        return None
    if not text.isascii() or "_" in text:
        return text
    try:
        number = float(text) if kind.is_float else int(text)
    except ValueError:
        return text
    return number if isinstance(number, int) or math.isfinite(number) else text


def _wrong(signature: Signature, field: str, expected: str, value: object) -> InferenceInvalid:
    return signature.refusal(
        InferenceInvalid,
        f"{quote(field)} must be {expected}",
        field=field,
        expected=expected,
        received=kind_of(value),
    )
