"""What a call carries beside its message: who asks, for which project, until when, and under which id."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.foundation.http.head import REQUEST_ID
from modelyard.foundation.http2 import CallHead

PROJECT: Final = b"modelyard-project"
"""Metadata that names another project than the caller's own (the `/p/{project}` of REST)."""
_prefix = os.urandom(6).hex()
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Asked:
    """Read from a call's metadata, once for all calls that have the same. `timeout_s` counts from when a call came.

    `fields` are all of it, by lower-case name.
    """

    fields: Mapping[bytes, bytes]
    authorization: bytes | None = None
    project: str | None = None
    timeout_s: float | None = None
    given_id: str | None = None

    def request_id(self) -> str:
        """The caller's id, or a new one."""
        return self.given_id or f"{_prefix}{next(_numbers):08x}"


def asked_of(head: CallHead) -> Asked:
    """What the metadata of a call says; kept with its head."""
    kept = head.kept
    if isinstance(kept, Asked):
        return kept
    fields = head.fields
    project, given = fields.get(PROJECT), fields.get(b"x-request-id")
    asked = Asked(
        authorization=fields.get(b"authorization"),
        project=None if project is None else project.decode("utf-8", "replace"),
        timeout_s=head.timeout_s,
        given_id=given.decode() if given is not None and REQUEST_ID.fullmatch(given) else None,
        fields=fields,
    )
    head.kept = asked
    return asked
