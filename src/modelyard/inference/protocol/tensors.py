"""Requests whose tensors come typed and not as a JSON document (gRPC): the same checks, in the same words.

A tensor is a mapping as in a V2 document, but its `data` is either raw bytes or a flat list of values.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.inference import BadDatatype
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.answers import classify
from modelyard.inference.protocol.careful import binary_array, by_name, common_rows, read_head
from modelyard.inference.protocol.options import apply_options
from modelyard.inference.protocol.request import InferRequest, Wanted
from modelyard.inference.protocol.signature import Input, Signature, count_of
from modelyard.inference.protocol.values import check_values, size_mismatch, values_array

Array = np.ndarray[Any, Any]


def read_tensors(
    tensors: Sequence[Mapping[str, Any]],
    *,
    id: str | None,  # noqa: A002  (the protocol's word)
    parameters: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
    signature: Signature,
) -> InferRequest:
    """A request from typed tensors, checked against the model. No `outputs` means all.

    Raises:
        InferenceInvalid: as `read_infer`, with the same codes and culprits.
        NotSupported: it asks for sequences or shared memory.
    """
    named = by_name(list(tensors), signature)
    arrays = {name: _array(tensor, signature.inputs[name], signature) for name, tensor in named.items()}
    if len(arrays) > 1:
        arrays = {name: arrays[name] for name in signature.inputs}
    rows = common_rows(arrays, signature) if arrays else 1
    request = InferRequest(inputs=arrays, rows=rows)
    if id is not None or parameters or outputs or signature.has_bf16_output:
        apply_options(
            request, signature, id=id, parameters=dict(parameters), outputs=list(outputs) if outputs else None
        )
    return request


def typed_outputs(
    request: InferRequest, outputs: Mapping[str, Array], signature: Signature
) -> list[tuple[str, DataType, Array]]:
    """What `request` wants of a run's outputs, in order: name, datatype, array; classes as `score:index:label`.

    Raises:
        KeyError: the model did not give an output that its contract promises.
    """
    wanted = request.wanted
    if wanted is None:
        return [(name, spec.datatype, outputs[name]) for name, spec in signature.outputs.items()]
    return [_one_output(one, outputs[one.name], signature) for one in wanted]


def _one_output(one: Wanted, array: Array, signature: Signature) -> tuple[str, DataType, Array]:
    if one.classes:
        return one.name, DataType.BYTES, classify(array, one.classes, signature)
    return one.name, signature.outputs[one.name].datatype, array


def _array(tensor: dict[str, Any], one: Input, signature: Signature) -> Array:
    shape, _ = read_head(tensor, one, signature)
    data = tensor["data"]
    if isinstance(data, bytes):
        return binary_array(data, shape, one, signature)
    if one.kind in {DataType.FP16, DataType.BF16}:
        raise signature.refusal(
            BadDatatype,
            f"{quote(one.name)} is {one.datatype}, which typed contents cannot carry",
            hint="send it in raw_input_contents",
            input=one.name,
            expected="raw_input_contents",
        )
    if len(data) != count_of(shape):
        raise size_mismatch(one, signature, shape, len(data))
    if one.is_plain:
        try:
            return check_values(one.pack(data, shape), one, signature)
        except (struct.error, OverflowError):
            pass  # a value does not fit: the careful reading names it
    return values_array(data, shape, one, signature)
