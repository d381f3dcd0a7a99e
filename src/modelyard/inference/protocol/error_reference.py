"""The reference page of inference errors, rendered from the error tree so that it cannot leave one out."""

from collections.abc import Iterator
from typing import Final

from modelyard.domain.errors import edge, inference, platform
from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.protocol.errors import status_of

_INTRODUCTION: Final = """\
# Errors of the inference listener

Generated from the error tree; `render_error_reference` in `modelyard.inference.protocol.error_reference` writes it.

Every error is a JSON object:

| member | holds |
|---|---|
| `error` | what is wrong, in one sentence of at most 500 characters |
| `code` | one of the codes below; it never changes its meaning |
| `request_id` | the id under which the server's log has the request; also in `x-request-id` |
| `details` | the culprits: any of `input`, `output`, `field`, `row`, `expected`, `received` |
| `example` | a body for this very model that succeeds when it is sent as it stands |
| `hint` | what to do |

429 and 503 carry `Retry-After`. Rows count from 0. Texts of the caller are repeated as ASCII in quotes, and cut short.

| code | status | meaning |
|---|---|---|
"""


def render_error_reference() -> str:
    """The page in Markdown: one row a code that the inference listener can answer."""
    rows: dict[str, str] = {}
    for root in (edge.EdgeError, inference.InferenceInvalid, platform.NotFound, platform.Unavailable, ModelyardError):
        for kind in family(root):
            if kind.__module__ in {edge.__name__, inference.__name__, platform.__name__}:
                meaning = (kind.__doc__ or kind.title).strip().splitlines()[0]
                rows.setdefault(kind.code, f"| `{kind.code}` | {status_of(kind)} | {meaning} |\n")
    rows.setdefault("internal", f"| `internal` | {status_of(ModelyardError)} | {ModelyardError.title}. |\n")
    return _INTRODUCTION + "".join(rows[code] for code in sorted(rows))


def family(kind: type[ModelyardError]) -> Iterator[type[ModelyardError]]:
    """`kind` and every class below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)
