"""The short ways of a prediction give what the long ways give: heads that are known again, answers from kept bytes."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.domain.contract import ModelContract
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.inference.grpc.known import Found, KnownHeads
from modelyard.inference.grpc.messages import POOL, InferRequestMessage, InferResponseMessage
from modelyard.inference.grpc.names import SERVICES, STREAMS
from modelyard.inference.grpc.reading import read_message, varint
from modelyard.inference.grpc.writing import Writer, write_message
from modelyard.inference.protocol import InferRequest, Signature
from modelyard.inference.protocol.datatypes import MEMORY

PLAIN = [kind for kind in DataType if kind not in {DataType.BYTES, DataType.BF16, DataType.BOOL}]


def backend_of(signature: Signature) -> SimpleNamespace:
    return SimpleNamespace(
        signature=signature, backend=SimpleNamespace(version="3", digest="sha256:d", revision=7), key=None
    )


def model(*kinds: DataType, outputs: tuple[DataType, ...] = (DataType.FP32,)) -> Signature:
    inputs = tuple(TensorSpec(name=f"x{n}", datatype=kind, shape=(-1, 2)) for n, kind in enumerate(kinds))
    given = tuple(TensorSpec(name=f"y{n}", datatype=kind, shape=(-1, 2)) for n, kind in enumerate(outputs))
    return Signature("m", ModelContract(inputs=inputs, outputs=given, max_batch_size=64))


def request(values: np.ndarray, kind: DataType = DataType.FP32, **more: object):
    message = InferRequestMessage(model_name="m", **more)
    message.inputs.add(name="x0", datatype=kind.value, shape=values.shape)
    message.raw_input_contents.append(values.tobytes())
    return message


def learned(message, signature: Signature) -> KnownHeads:
    heads, body = KnownHeads(), message.SerializeToString()
    parsed, _ = read_message(message, signature)
    backend = backend_of(signature)
    heads.learn(body, message, parsed, Found(None, backend, Writer(backend)))
    return heads


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(PLAIN), rows=st.integers(1, 5), data=st.data())
def test_a_known_request_reads_as_the_long_way_reads_it(kind: DataType, rows: int, data) -> None:
    signature, size = model(kind), rows * 2 * MEMORY[kind].itemsize
    first = np.zeros((rows, 2), MEMORY[kind])
    heads = learned(request(first, kind), signature)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    body = request(np.frombuffer(raw, MEMORY[kind]).reshape(rows, 2), kind).SerializeToString()
    known = heads.find(body)
    assert known is not None
    quick = known.read(body)
    if quick is None:  # a value that is not finite: the long way says which
        assert kind.is_float
        return
    slow, answers_raw = read_message(InferRequestMessage.FromString(body), signature)
    assert answers_raw
    assert quick.rows == slow.rows == rows
    np.testing.assert_array_equal(quick.inputs["x0"], slow.inputs["x0"])
    assert quick.inputs["x0"].flags.aligned


def test_another_shape_of_the_same_size_is_not_known() -> None:
    heads = learned(request(np.zeros((2, 2), "<f4")), model(DataType.FP32))
    other = request(np.zeros((4, 1), "<f4"))
    assert len(other.SerializeToString()) == len(request(np.zeros((2, 2), "<f4")).SerializeToString())
    assert heads.find(other.SerializeToString()) is None


@pytest.mark.parametrize("special", ["id", "parameters", "outputs", "typed", "tensor parameters"])
def test_what_asks_for_more_is_never_known(special: str) -> None:
    message = request(np.ones((1, 2), "<f4"))
    match special:
        case "id":
            message.id = "7"
        case "parameters":
            message.parameters["priority"].int64_param = 1
        case "outputs":
            message.outputs.add(name="y0")
        case "typed":
            del message.raw_input_contents[:]
            message.inputs[0].contents.fp32_contents.extend([1, 2])
        case _:
            message.inputs[0].parameters["own"].bool_param = True
    assert learned(message, model(DataType.FP32)).find(message.SerializeToString()) is None


def test_data_that_only_seems_to_stand_last_is_not_known() -> None:
    """A field that nobody knows ends in what looks like the tag, the size and the data."""
    data = np.ones((1, 2), "<f4").tobytes()
    look = b"\x3a" + varint(len(data)) + data
    body = request(np.ones((1, 2), "<f4")).SerializeToString() + b"\xfa\x01" + varint(len(look)) + look
    message = InferRequestMessage.FromString(body)
    heads, signature = KnownHeads(), model(DataType.FP32)
    parsed, _ = read_message(message, signature)
    backend = backend_of(signature)
    heads.learn(body, message, parsed, Found(None, backend, Writer(backend)))
    assert heads.find(body) is None


@settings(max_examples=100, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([*PLAIN, DataType.BOOL, DataType.BF16]), min_size=1, max_size=3),
    rows=st.integers(0, 4),
)
def test_an_answer_from_kept_bytes_is_the_answer(kinds: list[DataType], rows: int) -> None:
    signature = model(DataType.FP32, outputs=tuple(kinds))
    outputs = {f"y{n}": np.arange(rows * 2).reshape(rows, 2).astype(MEMORY[kind]) for n, kind in enumerate(kinds)}
    asked = InferRequest({}, rows)
    writer = Writer(backend_of(signature))
    for _ in range(2):  # the second time from what was kept
        written = InferResponseMessage.FromString(writer.write(asked, outputs, raw=True))
        assert written == write_message(asked, outputs, raw=True, signature=signature, version="3")


def test_the_names_are_those_of_the_descriptors() -> None:
    services = [POOL.FindServiceByName(name) for name in SERVICES]
    streams = {
        f"/{service.full_name}/{method.name}".encode()
        for service in services
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }
    assert streams == STREAMS
