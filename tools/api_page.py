"""The reference page of the control API, made from its routes and its policy table."""

from typing import Any

from fastapi import FastAPI

from modelyard.control.api import docs, events, health, platform
from modelyard.control.api.app import PREFIX, ROUTERS
from modelyard.control.api.openapi import describe
from modelyard.control.api.policy import POLICY
from modelyard.control.deployments.routes import router as services
from modelyard.control.intake.routes import router as uploads
from modelyard.control.nodes.routes import router as nodes

_METHODS = ("get", "head", "post", "put", "patch", "delete")


def api_page(made: str) -> str:
    """Every operation: address, what it does, the scope it needs, its parameters and answers."""
    document = _document()
    lines = [
        "# Control API\n\n",
        made,
        "REST on the control listener, JSON in and out, refusals as RFC 9457 problem documents\n"
        "([error codes](error-codes.md)). Collections are paged by `limit` and `cursor`, changes honour `If-Match`,\n"
        "creations honour `Idempotency-Key`. `?project=` names a project; without it the key's own is meant. The\n"
        "whole OpenAPI document is at `/openapi.json`, a page to read it with at `/docs`.\n",
    ]
    for path, operations in sorted(document["paths"].items()):
        for method in _METHODS:
            if method in operations:
                lines.append(_operation(method.upper(), path, operations[method]))  # noqa: PERF401  (reads better)
    return "".join(lines)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rule = POLICY[(method, path)]
    text = [f"\n## `{method} {path}`\n\n{operation['summary']}. Needs: {rule.needs.value}.\n"]
    if operation.get("description"):
        text.append(f"\n{operation['description'].strip()}\n")
    rows = [item for item in operation.get("parameters", ()) if item["in"] in {"query", "header"}]
    if rows:
        text.append("\n| parameter | in | meaning |\n|---|---|---|\n")
        for item in rows:
            about = item.get("description") or item["schema"].get("description") or item["schema"].get("title", "")
            text.append(f"| `{item['name']}` | {item['in']} | {' '.join(about.split()).replace('|', '/')} |\n")
    said = sorted(operation["responses"].items())
    answers = ", ".join(f"{code} {answer.get('description', 'a problem document')}" for code, answer in said)
    text.append(f"\nAnswers: {answers}.\n")
    return "".join(text)


def _document() -> dict[str, Any]:
    app = FastAPI(title="Modelyard", docs_url=None, redoc_url=None, openapi_url=None)
    for router in (health.router, docs.router):
        app.include_router(router)
    mounted = [platform.router, events.router, *ROUTERS]
    for router in (*mounted, *(each for each in (uploads, services, nodes) if each not in mounted)):
        app.include_router(router, prefix=PREFIX)
    return describe(app, POLICY)
