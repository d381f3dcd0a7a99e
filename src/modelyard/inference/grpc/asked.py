"""What a call carries beside its message: who asks, for which project, until when, and under which id."""

import itertools
import os
from dataclasses import dataclass
from typing import Any, Final

from modelyard.foundation.http.head import REQUEST_ID
from modelyard.inference.routing import ServedBackend

PROJECT: Final = "modelyard-project"
"""Metadata that names another project than the caller's own (the `/p/{project}` of REST)."""
_prefix = os.urandom(6).hex()
_numbers = itertools.count(1)


@dataclass(slots=True)
class Asked:
    """Read from a call's metadata and deadline. `backend` is set once it is known who answers."""

    request_id: str
    authorization: bytes | None = None
    project: str | None = None
    remaining_s: float | None = None
    backend: ServedBackend | None = None

    @classmethod
    def of(cls, context: Any) -> "Asked":  # noqa: ANN401  (a grpc.aio.ServicerContext)
        """What `context` says."""
        asked = cls("", remaining_s=context.time_remaining())
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                asked.authorization = value if isinstance(value, bytes) else value.encode("latin-1")
            elif name == PROJECT:
                asked.project = str(value)
            elif name == "x-request-id" and REQUEST_ID.fullmatch(str(value).encode()):
                asked.request_id = str(value)
        if not asked.request_id:
            asked.request_id = f"{_prefix}{next(_numbers):08x}"
        return asked

    def trailers(self) -> tuple[tuple[str, str], ...]:
        """What every answer says of itself: the id, and who answered where that is known."""
        own = ("x-request-id", self.request_id)
        if self.backend is None:
            return (own,)
        backend = self.backend.backend
        return (
            own,
            ("x-model-version", backend.version),
            ("x-model-digest", backend.digest),
            ("x-revision", str(backend.revision)),
        )
