"""The OpenAPI document: what the framework knows, and what it cannot: our problems, keys and scopes."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from modelyard.control.api.policy import Open, PolicyTable, Rule

_METHODS: Final = ("get", "post", "put", "patch", "delete", "head")
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "hint", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; docs/reference/error-codes.md lists all."},
        "hint": {"type": "string", "description": "What to do."},
        "request_id": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
        "example": {"type": "object"},
    },
}
_ANSWERS: Final = {
    "4XX": "The request was refused; the problem says why and what to do",
    "5XX": "The request could not be answered; the problem says whether to try again",
}


def describe(app: FastAPI, policy: Mapping[tuple[str, str], Rule]) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["responses"] = {name: _answer(text) for name, text in _ANSWERS.items()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "mdy_live_…"}}
    table = PolicyTable(policy)
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                _complete(operations[method], table.match(method.upper(), path).rule)
    app.openapi_schema = document
    return document


def _complete(operation: dict[str, Any], rule: Rule | None) -> None:
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    for name, text in _ANSWERS.items():
        responses[name] = {"$ref": f"#/components/responses/{name}", "description": text}
    if rule is not None and rule.needs is not Open.PUBLIC:
        operation["security"] = [{"key": []}]
        operation["x-scope"] = rule.needs.value


def _answer(text: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": text, "content": content}
