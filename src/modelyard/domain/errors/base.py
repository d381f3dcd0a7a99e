"""The root of the error tree and the rules all errors share."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

Detail = Mapping[str, Any]
"""One culprit: any of `input`, `expected`, `received`, `row`, `field`, `file`, in plain JSON values."""

MAX_TEXT: Final = 500


def quote(value: object, *, limit: int = 60) -> str:
    """The caller's text made safe to repeat: printable ASCII, in quotes, cut after `limit` characters."""
    text = ascii(str(value))
    return text if len(text) <= limit else f"{text[: limit - 2]}…{text[-1]}"


class ModelyardError(Exception):
    """Something a person has to know about, with what to do.

    `example` is a request that succeeds when sent as it stands, where one can be given.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self,
        detail: str,
        *,
        hint: str = "",
        details: Sequence[Detail] = (),
        example: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail[:MAX_TEXT]
        self.hint = hint[:MAX_TEXT]
        self.details = tuple(details)
        self.example = example
        super().__init__(self.detail)

    def __str__(self) -> str:
        return f"{self.detail} (hint: {self.hint})" if self.hint else self.detail
