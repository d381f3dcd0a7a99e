"""Messages to requests and back, for every datatype; and the table of statuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors import edge, inference, platform, uploads
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.http2 import Status
from modelyard.inference.grpc.messages import InferRequestMessage, InferResponseMessage, parse
from modelyard.inference.grpc.reading import CONTENTS, read_message
from modelyard.inference.grpc.statuses import STATUS, metadata_of, status_of
from modelyard.inference.grpc.writing import write_message
from modelyard.inference.protocol import Signature, to_raw
from modelyard.inference.protocol.datatypes import MEMORY, objects

RAW_ONLY = {DataType.FP16, DataType.BF16}


def same(kind: DataType) -> Signature:
    """A model that takes and gives one tensor of this datatype."""
    shape = (-1, 2)
    return Signature(
        "m",
        ModelContract(
            inputs=(TensorSpec(name="x", datatype=kind, shape=shape),),
            outputs=(TensorSpec(name="y", datatype=kind, shape=shape),),
            max_batch_size=8,
        ),
    )


def array_of(kind: DataType) -> np.ndarray:
    if kind is DataType.BYTES:
        return objects([b"", b"\xff\x00", "é".encode(), b"x" * 300]).reshape(2, 2)
    if kind is DataType.BOOL:
        return np.array([[True, False], [False, True]])
    if kind.is_float:
        return np.array([[0.5, -2.0], [3.0, 0.0]], dtype=MEMORY[kind])
    info = np.iinfo(MEMORY[kind])
    return np.array([[info.min, info.max], [0, 1]], dtype=MEMORY[kind])


def request_for(kind: DataType, array: np.ndarray, *, raw: bool):
    request = InferRequestMessage(model_name="m")
    tensor = request.inputs.add(name="x", datatype=kind.value, shape=array.shape)
    if raw:
        request.raw_input_contents.append(to_raw(array, kind))
    else:
        getattr(tensor.contents, CONTENTS[kind.value]).extend(array.ravel().tolist())
    return request


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", list(DataType))
def test_every_datatype_goes_there_and_back(kind: DataType, raw: bool) -> None:
    signature, array = same(kind), array_of(kind)
    if kind in RAW_ONLY and not raw:
        request = InferRequestMessage(model_name="m")
        request.inputs.add(name="x", datatype=kind.value, shape=[2, 2]).contents.fp32_contents.extend([1, 2, 3, 4])
        with pytest.raises(inference.BadDatatype):
            read_message(request, signature)
        return
    sent = request_for(kind, array, raw=raw).SerializeToString()
    parsed, answers_raw = read_message(parse(InferRequestMessage, sent), signature)
    assert answers_raw is raw
    assert parsed.rows == 2
    assert parsed.inputs["x"].tolist() == array.tolist()
    answer = write_message(parsed, {"y": parsed.inputs["x"]}, raw=raw, signature=signature, version="1")
    got = InferResponseMessage.FromString(answer.SerializeToString())
    assert list(got.outputs[0].shape) == [2, 2]
    if raw:
        assert got.raw_output_contents[0] == to_raw(array, kind)
    else:
        assert list(getattr(got.outputs[0].contents, CONTENTS[kind.value])) == array.ravel().tolist()


def test_an_answer_with_half_floats_is_raw_whatever_was_asked() -> None:
    contract = ModelContract(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 1)),),
        outputs=(
            TensorSpec(name="a", datatype=DataType.FP32, shape=(-1, 1)),
            TensorSpec(name="b", datatype=DataType.BF16, shape=(-1, 1)),
        ),
        max_batch_size=8,
    )
    signature = Signature("m", contract)
    parsed, raw = read_message(request_for(DataType.FP32, np.array([[1.5]], dtype="f4"), raw=False), signature)
    one = np.array([[1.5]], dtype="f4")
    answer = write_message(parsed, {"a": one, "b": one}, raw=raw, signature=signature, version="1")
    assert list(answer.raw_output_contents) == [one.tobytes(), b"\xc0\x3f"]
    assert not any(output.contents.ListFields() for output in answer.outputs)


@pytest.mark.parametrize(("kind", "value"), [(DataType.INT8, 128), (DataType.UINT8, 256), (DataType.INT16, -40000)])
def test_small_integers_out_of_range_are_refused_with_their_row(kind: DataType, value: int) -> None:
    request = InferRequestMessage(model_name="m")
    tensor = request.inputs.add(name="x", datatype=kind.value, shape=[2, 2])
    getattr(tensor.contents, CONTENTS[kind.value]).extend([0, 1, 1, value])
    with pytest.raises(inference.BadData) as caught:
        read_message(request, same(kind))
    assert caught.value.details[0]["row"] == 1


def status_after(read) -> Status:
    """What a client would see of this reading."""
    try:
        read()
    except ModelyardError as error:
        return status_of(type(error))
    return Status.OK


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    signature = same(DataType.FP32)
    assert status_after(lambda: read_message(parse(InferRequestMessage, body), signature)) in {
        Status.OK,
        Status.INVALID_ARGUMENT,
        Status.UNIMPLEMENTED,
    }


@given(
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    datatype=st.sampled_from([*DataType, "", "nope"]),
    values=st.lists(st.floats(width=32), max_size=6),
    raw=st.lists(st.binary(max_size=20), max_size=2),
)
@settings(max_examples=300, deadline=None)
def test_any_tensor_is_taken_or_refused(shape, datatype, values, raw) -> None:
    request = InferRequestMessage(model_name="m", raw_input_contents=raw)
    request.inputs.add(name="x", datatype=str(datatype), shape=shape).contents.fp32_contents.extend(values)
    status = status_after(lambda: read_message(request, same(DataType.FP32)))
    assert status in {Status.OK, Status.INVALID_ARGUMENT}
    if status is Status.OK:
        assert read_message(request, same(DataType.FP32))[0].inputs["x"].shape == tuple(shape)


def test_every_error_has_a_status_and_small_metadata() -> None:
    def tree(kind: type[ModelyardError]):
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    assert {edge.EdgeError, inference.InferenceInvalid, platform.NotFound, uploads.UploadRefused} <= STATUS.keys()
    assert all(status_of(kind) is not Status.OK for kind in tree(ModelyardError))
    large = platform.NotFound("é" * 400, details=[{"x": "y" * 5000}])
    assert sum(len(key) + len(value) for key, value in metadata_of(large, request_id="r")) < 4096
