"""Know a ModelInferRequest again by its head: all of it but the raw data of its one input.

Clients that ask the same model again and again send the same bytes but for the data, which stands last. A message of
the same size that begins with the same head, its last bytes being the size of the data, can only be that request with
other data: so it is read with one comparison, and neither parsed nor checked again (Protocol Buffers, "Encoding").
"""

from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from modelyard.domain.tensors import DataType
from modelyard.inference.grpc.messages import InferRequestMessage
from modelyard.inference.grpc.reading import varint
from modelyard.inference.grpc.writing import Writer
from modelyard.inference.protocol import InferRequest, Signature
from modelyard.inference.routing import ServedBackend, Service

_RAW_TAG: Final = b"\x3a"  # ModelInferRequest.raw_input_contents: field 7, length-delimited
_HEADS: Final = 256
_BEGINNING: Final = 16  # bytes: the name of the model, mostly
_LONGEST_HEAD: Final = 1024


class Found(NamedTuple):
    """Who was asked with a message."""

    service: Service
    backend: ServedBackend
    writer: Writer


class Known:
    """A head, who was asked with it, and what was found to fit. `backend` is the one that it was checked against."""

    __slots__ = (
        "_dtype", "_finite", "_input", "_rows", "_shape", "_size",
        "backend", "head", "model", "service", "version", "writer",
    )  # fmt: skip

    def __init__(self, head: bytes, message: Any, parsed: InferRequest, found: Found) -> None:  # noqa: ANN401  (of protobuf)
        backend = found.backend
        assert backend.signature is not None
        one = backend.signature.single
        assert one is not None
        self.head = head
        self.model: str = message.model_name
        self.version: str | None = message.model_version or None
        self.service = found.service
        self.backend = backend
        self.writer = found.writer
        self._size = len(head)
        self._input = one.name
        self._dtype = one.dtype
        self._finite = one.is_finite
        self._shape = parsed.inputs[one.name].shape
        self._rows = parsed.rows

    def read(self, body: bytes) -> InferRequest | None:
        """The request in `body`, which begins with the head; None where a value needs a closer look."""
        array: np.ndarray[Any, Any] = np.ndarray(self._shape, self._dtype, body[self._size :])
        if self._finite and not np.isfinite(array).all():
            return None
        return InferRequest({self._input: array}, self._rows)


class KnownHeads:
    """The heads seen last, one for a message size and beginning. Bounded."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], Known] = {}

    def find(self, body: bytes) -> Known | None:
        """What is known of the message in `body`."""
        known = self._known.get((len(body), body[:_BEGINNING]))
        return known if known is not None and body.startswith(known.head) else None

    def forget(self) -> None:
        """The models may have changed."""
        self._known.clear()

    def learn(self, body: bytes, message: Any, parsed: InferRequest, found: Found) -> None:  # noqa: ANN401  (of protobuf)
        """Keep the head of a message that was read and found good, if it is one that can be known again."""
        signature = found.backend.signature
        if signature is None or not _is_simple(message, parsed, signature):
            return
        raw = message.raw_input_contents[0]
        head = body[: len(body) - len(raw)]
        tail = _RAW_TAG + varint(len(raw))
        if len(head) > _LONGEST_HEAD or not head.endswith(tail) or not _is_whole(head[: -len(tail)], message):
            return
        if len(self._known) >= _HEADS:
            self._known.clear()
        self._known[len(body), body[:_BEGINNING]] = Known(head, message, parsed, found)


def _is_simple(message: Any, parsed: InferRequest, signature: Signature) -> bool:  # noqa: ANN401  (of protobuf)
    one = signature.single
    return (
        one is not None
        and one.is_plain
        and not one.allows_nan
        and one.kind is not DataType.BOOL
        and not signature.has_bf16_output
        and len(message.raw_input_contents) == 1
        and len(message.raw_input_contents[0]) > 0
        and parsed.id is None
        and parsed.wanted is None
        and not message.parameters
        and not message.outputs
        and not message.inputs[0].parameters
    )


def _is_whole(before: bytes, message: Any) -> bool:  # noqa: ANN401  (of protobuf)
    """Whether the data really stands last: what is before it is a message by itself, the same without the data."""
    rest = InferRequestMessage()
    rest.CopyFrom(message)
    rest.ClearField("raw_input_contents")
    try:
        return bool(InferRequestMessage.FromString(before) == rest)
    except DecodeError:
        return False
