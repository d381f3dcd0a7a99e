"""Documents that a person gives to a command: an object in JSON or YAML, in a file or typed in place."""

import json
from pathlib import Path
from typing import Any

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest


def read_document(path: Path, what: str) -> dict[str, Any]:
    """The object in a file; `what` is its name in errors.

    Raises:
        InvalidRequest: it cannot be read, or is no object.
    """
    try:
        document = _read(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"the {what} {quote(path.name)} cannot be read: {quote(error, limit=200)}", hint="JSON or YAML"
        ) from error
    if not isinstance(document, dict):
        raise InvalidRequest(f"the {what} is no object", hint='such as {"name": "value"}, as JSON or YAML')
    return document


def given_document(text: str, what: str) -> dict[str, Any]:
    """The object in a file of this name, or in the text itself where it begins with a brace."""
    if not text.lstrip().startswith("{"):
        return read_document(Path(text), what)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"the {what} is no JSON: {error}", hint="or give a file") from error
    return dict(document)


def _read(path: Path) -> Any:  # noqa: ANN401  (a document)
    if path.suffix in {".yaml", ".yml"}:
        import yaml

        try:
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    return json.loads(path.read_text(encoding="utf-8"))
