"""Read manifests strictly: all that is wrong is said at once, each with the path of its field and what is right."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from modelyard.control.deployments.manifest_fields import Manifest
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

MOST_DOCUMENTS: Final = 200
_MOST_DETAILS: Final = 20


def read_manifests(documents: Sequence[object]) -> list[Manifest]:
    """The manifests in `documents`, none of them twice.

    Raises:
        InvalidRequest: with a row for each thing that is wrong: `document` (from 0), `field`, `expected`, `received`.
    """
    if not 0 < len(documents) <= MOST_DOCUMENTS:
        raise InvalidRequest(
            f"{len(documents)} documents are not applied at once", hint=f"send 1 to {MOST_DOCUMENTS} manifests"
        )
    found: list[Manifest] = []
    wrong: list[dict[str, Any]] = []
    for index, document in enumerate(documents):
        try:
            found.append(Manifest.model_validate_json(json.dumps(document), strict=True))
        except ValidationError as error:
            wrong += [_detail(index, dict(each)) for each in error.errors(include_url=False)]
    wrong += _twice(found)
    if wrong:
        raise refusal(wrong)
    return found


def refusal(wrong: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """One error for everything that is wrong, which speaks of the first."""
    first = wrong[0]
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    where = f"document {first['document'] + 1}, {first['field']}"
    said = first.get("reason") or f"it cannot be {first.get('received', 'so')}"
    return InvalidRequest(f"{where}: {said}{more}", hint=str(first["expected"]), details=wrong[:_MOST_DETAILS])


def _detail(index: int, error: Mapping[str, Any]) -> dict[str, Any]:
    place = tuple(error["loc"])
    detail: dict[str, Any] = {"document": index, "field": path_of(place)}
    if error["type"] == "extra_forbidden":
        known = _fields_at(place[:-1])
        near = get_close_matches(str(place[-1]), known, 1, 0.6)
        listed = f"one of {', '.join(known)}"
        detail["reason"] = "there is no such field"
        detail["expected"] = f"did you mean {near[0]}? {listed}" if near else listed
        return detail
    if error["type"] == "missing_answerer":
        return {**detail, "field": f"{detail['field']}.model", "reason": "it is missing", "expected": error["msg"]}
    if error["type"] == "missing":
        return {**detail, "reason": "it is missing", "expected": "a value for it"}
    expected = str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return {**detail, "expected": expected, "received": quote(error.get("input"))}


def path_of(place: Sequence[int | str]) -> str:
    """`spec.rollout.steps[1]`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the document"


def _fields_at(place: Sequence[int | str]) -> list[str]:
    """The fields that the object at `place` may have."""
    kind: Any = Manifest
    for part in place:
        if isinstance(part, str) and _is_model(kind):
            kind = _model_in(kind.model_fields[part].annotation) if part in kind.model_fields else None
    return list(kind.model_fields) if _is_model(kind) else []


def _model_in(annotation: object) -> object:
    """The model that an annotation such as `list[X]` or `X | None` is about."""
    if _is_model(annotation):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((each for each in found if each is not None), None)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _twice(manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    seen: set[tuple[str, str]] = set()
    wrong: list[dict[str, Any]] = []
    for index, manifest in enumerate(manifests):
        key = (manifest.metadata.project, manifest.metadata.name)
        if key in seen:
            wrong.append(
                {
                    "document": index,
                    "field": "metadata.name",
                    "reason": f"{quote(key[1])} is there twice",
                    "expected": "one document for each service",
                }
            )
        seen.add(key)
    return wrong
