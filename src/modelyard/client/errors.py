"""Errors of the client: what the platform said, in its own words, or why it could not be asked."""

from collections.abc import Mapping
from typing import Any

import httpx

from modelyard.client.connection import Connection
from modelyard.domain.errors import ModelyardError


class RemoteError(ModelyardError):
    """An answer other than success. `status` is the HTTP status, `remote_code` the platform's stable code."""

    code = "remote_error"
    title = "The platform refused"

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(
            str(document.get("detail") or document.get("error") or f"HTTP status {status}"),
            hint=str(document.get("hint") or ""),
            details=[row for row in document.get("details") or () if isinstance(row, Mapping)],
            example=document.get("example"),
        )
        self.status = status
        self.document = document
        self.remote_code = str(document.get("code") or "")
        self.title = str(document.get("title") or type(self).title)  # type: ignore[misc]  # the platform's own title


class NotReachable(ModelyardError):
    """Nobody answers at the address."""

    code = "not_reachable"
    title = "The platform does not answer"


def not_reachable(connection: Connection, error: httpx.TransportError) -> NotReachable:
    """`error` in words, with what to do."""
    return NotReachable(
        f"{connection.url}: {error}",
        hint="start it with `modelyard up`, or name another with --url or MODELYARD_URL",
    )


def raise_for(response: httpx.Response) -> None:
    """Raise `RemoteError` for anything but success; the body must have been read."""
    if response.is_success:
        return
    try:
        document = response.json()
    except ValueError:
        document = {}
    raise RemoteError(response.status_code, document if isinstance(document, Mapping) else {})
