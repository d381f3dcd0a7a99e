"""The readers under test. A target takes bytes and raises when a promise is broken; it may refuse whatever it likes.

http    HTTP/1.1 (head, sized and chunked bodies, pipelining): no failure of ours, whole answers, no more answers than
        requests, and the same whether the bytes come at once or in pieces
http2   HTTP/2 frames, HPACK and gRPC messages: the same
json    the JSON guard: what it lets through, the standard library reads with the same value, no key twice
binary  V2 requests, plain, with binary tensors, and raw: refused with an error of ours, or arrays that fit the model
"""

import asyncio
import json
import logging
import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from tests.fuzz.transport import feed

from modelyard.domain.contract import ModelContract
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import InferenceInvalid
from modelyard.domain.errors.platform import NotSupported
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.http import EdgeLimits, EdgeSettings, Reply, Request
from modelyard.foundation.http.connection import Connection
from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http.turns import Turn
from modelyard.foundation.http2 import Call, Methods
from modelyard.foundation.http2.connection import Http2Connection
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.outflow import Turns
from modelyard.foundation.http2.shared import Shared
from modelyard.foundation.strict_json import StrictJsonError, guard, loads
from modelyard.inference.protocol import Signature, read_infer

Target = Callable[[bytes], None]
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class _Watch(logging.Handler):
    """An exception that a reader caught and logged is a failure too."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            raise record.exc_info[1]


@contextmanager
def watching() -> Iterator[None]:
    """Inside the block, what a reader logs with its exception is raised."""
    watch, log = _Watch(), logging.getLogger("modelyard")
    log.addHandler(watch)
    try:
        yield
    finally:
        log.removeHandler(watch)


class Http:
    """One connection a run, with an echo behind it."""

    def __init__(self) -> None:
        limits = EdgeLimits(max_body_bytes=1 << 16)
        self._loop = asyncio.new_event_loop()
        self._edge = Edge(EdgeSettings(limits=limits), self._loop)
        self._seen: list[tuple[str, str, bytes]] = []

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        once, whole = self._run(data[1:], 1)
        split, parts = self._run(data[1:], 1 + data[0] % 7)
        assert once == split, f"in pieces it is another conversation: {once} and {split}"
        assert whole == parts, f"in pieces the answers are {parts}, at once {whole}"

    def close(self) -> None:
        self._loop.close()

    def _run(self, data: bytes, pieces: int) -> tuple[list[Any], list[int]]:
        self._seen = []
        connection = Connection(self._edge, self._handle, Turn(self._edge))
        sent = bytes(feed(connection, data, pieces).sent)
        statuses = _whole_answers(sent)
        assert len(statuses) <= len(self._seen) + 1, "more answers than requests and one refusal"
        assert 500 not in statuses, "a failure of ours"
        assert self._edge.buffered == 0, f"{self._edge.buffered} bytes were not given back"
        return self._seen, statuses

    def _handle(self, request: Request, reply: Reply) -> None:
        self._seen.append((request.method, request.path, request.body))
        reply.send(200, request.body, content_type="application/octet-stream")


def _whole_answers(sent: bytes) -> list[int]:
    """The final statuses in `sent`, which must be answers and nothing else."""
    statuses, at = [], 0
    while at < len(sent):
        found = _STATUS.match(sent, at)
        assert found, f"no answer begins with {sent[at : at + 40]!r}"
        end = sent.find(b"\r\n\r\n", at)
        assert end > 0, "an answer has no end of its head"
        head = sent[at:end]
        size = re.search(rb"\r\ncontent-length: (\d+)", head)
        at = end + 4
        if found[1] == b"100":
            continue
        statuses.append(int(found[1]))
        if size is not None and at < len(sent) and sent[at : at + 9] != b"HTTP/1.1 ":  # an answer to HEAD has no body
            at += int(size[1])
    assert at == len(sent), "the last answer is cut"
    return statuses


class Http2:
    """One connection a run, with an echo behind it."""

    def __init__(self) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._shared = Shared(Edge(EdgeSettings(limits=EdgeLimits()), loop), Http2Limits(), Turns(loop))
        self._methods = Methods({b"/t.T/Echo": self._echo}, {})
        self._seen: list[tuple[bytes, bytes]] = []

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        once, split = self._run(data[1:], 1), self._run(data[1:], 1 + data[0] % 7)
        assert once == split, f"in pieces it is another conversation: {once} and {split}"

    def close(self) -> None:
        self._loop.close()

    def _run(self, data: bytes, pieces: int) -> list[tuple[bytes, bytes]]:
        self._seen = []
        connection = Http2Connection(self._shared, self._methods)
        sent = bytes(feed(connection, data, pieces).sent)
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()
        _whole_frames(sent)
        return self._seen

    def _echo(self, call: Call) -> None:
        self._seen.append((call.head.path, bytes(call.message)))
        call.reply(call.message)


def _whole_frames(sent: bytes) -> None:
    if sent.startswith(b"HTTP/1"):
        return
    at = 0
    while at < len(sent):
        assert len(sent) - at >= 9, "a frame's head is cut"
        at += 9 + int.from_bytes(sent[at : at + 3], "big")
    assert at == len(sent), "the last frame is cut"


def read_json(data: bytes) -> None:
    """The strict reader against the standard library's."""
    try:
        value = loads(data)
    except StrictJsonError:
        return
    assert same(value, json.loads(data, object_pairs_hook=_once, parse_constant=_refuse)), "two readers, two values"
    guard(data)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} was let through")


def same(one: Any, other: Any) -> bool:
    """Equal values of equal kinds."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)


def _spec(name: str, datatype: DataType, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def _signature(*inputs: TensorSpec) -> Signature:
    outputs = (_spec("y", DataType.FP32, -1, 2),)
    return Signature("m", ModelContract(inputs=inputs, outputs=outputs, max_batch_size=10_000), None)


SIGNATURES: Final = (
    _signature(_spec("x", DataType.FP32, -1, 3)),
    _signature(_spec("x", DataType.INT8, -1, 3)),
    _signature(_spec("x", DataType.FP32, -1), _spec("z", DataType.FP32, -1)),
    _signature(_spec("x", DataType.BYTES, -1)),
    _signature(_spec("x", DataType.BOOL, -1)),
    _signature(_spec("x", DataType.UINT64, -1, -1)),
    _signature(_spec("x", DataType.FP16, -1, 2, 2)),
)


def read_binary(data: bytes) -> None:
    """A V2 request: the first byte picks model and form, two more the length of the JSON part."""
    if len(data) < 3:
        return
    signature = SIGNATURES[data[0] % len(SIGNATURES)]
    form, body = data[0] // len(SIGNATURES) % 4, data[3:]
    size = None if form == 0 else 0 if form == 1 else struct.unpack_from("<H", data, 1)[0]
    try:
        request = read_infer(body, json_size=size, signature=signature)
    except (InferenceInvalid, NotSupported):
        return
    except ModelyardError as error:
        raise AssertionError(f"refused with {type(error).__name__}") from error
    for spec in signature.contract.inputs:
        array = request.inputs[spec.name]
        assert isinstance(array, np.ndarray)
        assert array.ndim == len(spec.shape), (array.shape, spec.shape)
        assert all(wanted in (-1, given) for wanted, given in zip(spec.shape, array.shape, strict=True))
        assert array.shape[0] == request.rows
    assert 1 <= request.rows <= 10_000


TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "http": Http,
    "http2": Http2,
    "json": lambda: read_json,
    "binary": lambda: read_binary,
}
