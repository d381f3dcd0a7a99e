"""Names that people choose: models, services, projects, aliases. One rule for all of them."""

import re
from typing import Final, NewType

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

ModelName = NewType("ModelName", str)
ServiceName = NewType("ServiceName", str)
ProjectName = NewType("ProjectName", str)
AliasName = NewType("AliasName", str)

DEFAULT_PROJECT: Final = ProjectName("default")
NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(NAME_PATTERN)
_FOREIGN: Final = re.compile(r"[^a-z0-9._-]+")


def require_name(value: str, *, what: str) -> str:
    """`value`, or `InvalidRequest` that says what a `what` ("model name") may look like and suggests one."""
    if _NAME.fullmatch(value):
        return value
    raise InvalidRequest(
        f"{quote(value)} is not a {what}: 1 to 63 of a-z 0-9 . _ - with a letter or digit at both ends",
        hint=f"try {suggest_name(value)!r}",
        details=[{"field": what, "received": quote(value), "expected": NAME_PATTERN}],
    )


def suggest_name(value: str) -> str:
    """The nearest valid name, "model" when nothing of the text can be kept."""
    return _FOREIGN.sub("-", value.lower())[:63].strip("._-") or "model"
