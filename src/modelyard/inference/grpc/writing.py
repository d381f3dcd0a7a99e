"""An answer as a ModelInferResponse: raw or typed for all outputs of the message."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.tensors import DataType
from modelyard.inference.grpc.messages import InferResponseMessage
from modelyard.inference.grpc.reading import CONTENTS
from modelyard.inference.protocol import InferRequest, Signature, to_raw, typed_outputs

Array = np.ndarray[Any, Any]
_RAW_ONLY: Final = frozenset({DataType.FP16, DataType.BF16})


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
