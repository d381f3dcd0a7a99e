"""The API's reference as one page that loads nothing from anywhere else, made from the OpenAPI document."""

from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

router = APIRouter(include_in_schema=False)
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #d5dbe3}
article{margin:1rem 0;padding:.75rem 1rem;border:1px solid #d5dbe3;border-radius:6px}
code{background:#f1f4f8;padding:.1rem .3rem;border-radius:4px}
.method{display:inline-block;min-width:4.5rem;font-weight:700}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e4e9f0;background:#12161c}code{background:#222a35}
article,h2{border-color:#333d4a}}
"""


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    """The OpenAPI 3.1 document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs/style.css")
def style() -> Response:
    """How the page looks."""
    return Response(_STYLE, media_type="text/css")


@router.get("/docs")
def page(request: Request) -> HTMLResponse:
    """Every operation with its parameters, body, answers and the scope it needs."""
    document = request.app.openapi()
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = (operation.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{escape(name)}</h2>{''.join(items)}" for name, items in groups.items())
    title = f"{escape(document['info']['title'])} control API {escape(document['info']['version'])}"
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/docs/style.css"></head>'
        f'<body><h1>{title}</h1><p>The same for programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{body}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    scope = operation.get("x-scope")
    needs = f" <small>needs <code>{escape(scope)}</code></small>" if scope else ""
    rows = "".join(_parameter(parameter) for parameter in operation.get("parameters", ()))
    table = f"<table>{rows}</table>" if rows else ""
    body = operation.get("requestBody", {}).get("content", {})
    kinds = "".join(f"<p>Body: <code>{escape(kind)}</code> {_shape(body[kind])}</p>" for kind in body)
    answers = ", ".join(f"<code>{escape(status)}</code>" for status in operation.get("responses", {}))
    text = escape(operation.get("description", ""))
    return (
        f'<article><p><span class="method">{escape(method.upper())}</span><code>{escape(path)}</code>{needs}</p>'
        f"<p><b>{escape(operation.get('summary', ''))}</b></p><p>{text}</p>{table}{kinds}"
        f"<p>Answers: {answers}</p></article>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    needed = "required" if parameter.get("required") else ""
    text = parameter.get("description") or ""
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])} {needed}</td>"
        f"<td>{escape(text)}</td></tr>"
    )


def _shape(content: dict[str, Any]) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f"<code>{escape(name)}</code>" if name else ""
