"""What the framework finds wrong with a request, in our words: which field, what was expected, what came."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.inference import BadJson
from modelyard.domain.errors.platform import InvalidRequest

_MAX_DETAILS: Final = 10


def invalid(error: RequestValidationError) -> ModelyardError:
    """One error for all that is wrong; the first is named in the text."""
    found = list(error.errors())
    if any(item.get("type") == "json_invalid" for item in found):
        return BadJson("the body is not valid JSON", hint="check quotes and commas")
    details = [_detail(item) for item in found[:_MAX_DETAILS]]
    first = details[0] if details else {"field": "request", "expected": "a valid request"}
    return InvalidRequest(
        f"{first['field']}: {first['expected']}", hint="/docs shows what this route takes", details=details
    )


def _detail(item: Mapping[str, Any]) -> dict[str, Any]:
    place = ".".join(str(part) for part in item.get("loc", ())[1:]) or str(item.get("loc", ("request",))[0])
    detail: dict[str, Any] = {"field": quote(place).strip("'"), "expected": str(item.get("msg", ""))[:200]}
    received = item.get("input")
    if isinstance(received, (str, int, float, bool)):
        detail["received"] = quote(received)
    return detail
