"""An answer as a ModelInferResponse: raw or typed for all outputs of the message.

The common answer, all outputs raw, is written without building a message: what stands before the data is the same for
every answer of one shape, and is kept as bytes (Protocol Buffers, "Encoding").
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.tensors import DataType
from modelyard.foundation.http2 import ok_block
from modelyard.inference.grpc.messages import InferResponseMessage
from modelyard.inference.grpc.reading import CONTENTS, varint
from modelyard.inference.grpc.statuses import who_answered
from modelyard.inference.protocol import InferRequest, Signature, to_raw, typed_outputs
from modelyard.inference.protocol.datatypes import MEMORY
from modelyard.inference.routing import ServedBackend

Array = np.ndarray[Any, Any]
_RAW_ONLY: Final = frozenset({DataType.FP16, DataType.BF16})
_RAW_TAG: Final = b"\x32"  # ModelInferResponse.raw_output_contents: field 6, length-delimited
_MOST_HEADS: Final = 256


class Writer:
    """Writes the answers of one backend. `trailers` is what each of them says of it, as a header block."""

    __slots__ = ("_heads", "_plain", "_signature", "_version", "trailers")

    def __init__(self, backend: ServedBackend) -> None:
        signature = backend.signature
        assert signature is not None
        self._signature = signature
        self._version = backend.backend.version
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}
        outputs = signature.outputs.items()
        plain = all(spec.datatype not in {DataType.BYTES, DataType.BF16} for _, spec in outputs)
        self._plain = tuple((name, spec.datatype, MEMORY[spec.datatype]) for name, spec in outputs) if plain else ()
        self.trailers = ok_block(who_answered(backend))

    def write(self, request: InferRequest, outputs: Mapping[str, Array], *, raw: bool) -> bytes:
        """The answer to `request`, serialised.

        Raises:
            RunFailed: the model did not give an output that its contract promises.
        """
        if raw and self._plain and request.wanted is None and request.id is None:
            body = self._quick(outputs)
            if body is not None:
                return body
        answer = write_message(request, outputs, raw=raw, signature=self._signature, version=self._version)
        return bytes(answer.SerializeToString())

    def _quick(self, outputs: Mapping[str, Array]) -> bytes | None:
        """All outputs raw; None where one is missing, or of another datatype in memory than the contract's."""
        plain = self._plain
        if len(plain) == 1:
            name, _, dtype = plain[0]
            array = outputs.get(name)
            if array is None or array.dtype != dtype:
                return None
            head = self._heads.get((array.shape,)) or self._head((array.shape,))
            return head + array.tobytes()
        arrays = [outputs.get(name) for name, _, _ in plain]
        if any(a is None or a.dtype != dtype for a, (_, _, dtype) in zip(arrays, plain, strict=True)):
            return None
        shapes = tuple([array.shape for array in arrays if array is not None])
        parts = [self._heads.get(shapes) or self._head(shapes)]
        for array in arrays:
            assert array is not None
            parts += (_RAW_TAG, varint(array.nbytes), array.tobytes())
        return b"".join(parts)

    def _head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        """What stands before the data; of a single output, its tag and size too, which follow from its shape."""
        answer = InferResponseMessage(model_name=self._signature.service, model_version=self._version)
        for (name, kind, _), shape in zip(self._plain, shapes, strict=True):
            answer.outputs.add(name=name, datatype=kind.value, shape=shape)
        head = bytes(answer.SerializeToString())
        if len(shapes) == 1:
            head += _RAW_TAG + varint(int(np.prod(shapes[0], dtype=np.int64)) * self._plain[0][2].itemsize)
        if len(self._heads) < _MOST_HEADS:
            self._heads[shapes] = head
        return head


def write_message(
    request: InferRequest, outputs: Mapping[str, Array], *, raw: bool, signature: Signature, version: str
) -> Any:  # noqa: ANN401  (of protobuf)
    """The answer to `request`. It is raw also where an output is of a datatype that has no typed form.

    Raises:
        RunFailed: the model did not give an output that its contract promises.
    """
    try:
        wanted = typed_outputs(request, outputs, signature)
    except KeyError as error:
        raise RunFailed(
            f"the model gave no output {quote(error.args[0])}, which its contract promises",
            hint="its owner has to check the model",
        ) from error
    answer = InferResponseMessage(model_name=signature.service, model_version=version, id=request.id or "")
    raw = raw or any(kind in _RAW_ONLY for _, kind, _ in wanted)
    for name, kind, array in wanted:
        tensor = answer.outputs.add(name=name, datatype=kind.value, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(to_raw(array, kind))
        else:
            getattr(tensor.contents, CONTENTS[kind.value]).extend(_values(array, kind))
    return answer


def _values(array: Array, kind: DataType) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    if kind is not DataType.BYTES:
        return values
    return [value.encode() if isinstance(value, str) else bytes(value) for value in values]
