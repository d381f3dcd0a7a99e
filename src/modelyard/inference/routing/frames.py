"""What a model server and an isolated worker say to each other over a Unix socket.

A frame is its length (u32, of all that follows), a kind (u8), a number that pairs an answer with its question (u64),
and a payload. The number of a hello is that of the connection, as the worker's diary names it. A run's payload begins
with the milliseconds that its callers still wait (u32): a worker does not begin what nobody waits for, nor what was
dropped, and says so. Every run is answered once. A stream is asked as a run is; its answer is any number of parts and
an end, a failure, or that it was dropped: the worker sends eight parts unasked, and one for each `MORE`. Tensors are a
MessagePack head (name, dtype, shape, bytes of each) and their raw memory, little-endian and row-major; BYTES elements
carry a u32 length, as in V2's binary form. Both ends are ours and of one version.
"""

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, Final

import msgspec
import numpy as np

Array = np.ndarray[Any, Any]
_PREFIX: Final = struct.Struct("<IBQ")
_LENGTH: Final = struct.Struct("<I")
_BESIDE_LENGTH: Final = _PREFIX.size - _LENGTH.size
_OBJECTS: Final = "O"


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    RUN = 2
    ANSWER = 3
    FAILURE = 4
    PING = 5
    PONG = 6
    DROP = 7
    DROPPED = 8
    STREAM = 9
    PART = 10
    END = 11
    MORE = 12


class Hello(msgspec.Struct, kw_only=True):
    """The worker's first frame: what it holds."""

    pid: int
    digest: str
    device: str
    memory_bytes: int
    load_s: float
    run_s: float
    streams: bool = False


class Failure(msgspec.Struct, kw_only=True):
    """The run failed; `text` is for the log, not for the client.

    `transient` says that the fault is not the input's: another worker, or the same one later, may answer. `bound` is
    what the run came up against, `memory` or `time`, where it was that.
    """

    text: str
    transient: bool = False
    bound: str = ""


class _Tensor(msgspec.Struct, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


_encode = msgspec.msgpack.Encoder().encode
_decode_tensors = msgspec.msgpack.Decoder(list[_Tensor]).decode


def frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return _PREFIX.pack(_BESIDE_LENGTH + len(payload), kind, number) + payload


def run_frame(number: int, payload: bytes, *, left_ms: int, kind: Kind = Kind.RUN) -> bytes:
    """A question: tensors, and how long their callers wait."""
    return b"".join(
        (_PREFIX.pack(_BESIDE_LENGTH + _LENGTH.size + len(payload), kind, number), _LENGTH.pack(left_ms), payload)
    )


def open_run(payload: bytes) -> tuple[float, bytes]:
    """(seconds that the callers still wait, tensors) of a question's payload."""
    return _LENGTH.unpack_from(payload)[0] / 1000, payload[_LENGTH.size :]


def pack_tensors(tensors: Mapping[str, Array]) -> bytes:
    """Tensors as a payload."""
    heads, bodies = [], []
    for name, array in tensors.items():
        if array.dtype.hasobject:
            body, dtype = _pack_texts(array), _OBJECTS
        else:
            body, dtype = np.ascontiguousarray(array).tobytes(), array.dtype.str
        heads.append(_Tensor(name, dtype, array.shape, len(body)))
        bodies.append(body)
    head = _encode(heads)
    return b"".join((_LENGTH.pack(len(head)), head, *bodies))


def unpack_tensors(payload: bytes) -> dict[str, Array]:
    """Tensors from a payload; they share its memory and are read-only."""
    size = _LENGTH.unpack_from(payload)[0]
    at = _LENGTH.size + size
    tensors: dict[str, Array] = {}
    for head in _decode_tensors(payload[_LENGTH.size : at]):
        if head.dtype == _OBJECTS:
            tensors[head.name] = _unpack_texts(payload[at : at + head.size], head.shape)
        else:
            dtype = np.dtype(head.dtype)
            count = head.size // dtype.itemsize
            tensors[head.name] = np.frombuffer(payload, dtype, count, at).reshape(head.shape)
        at += head.size
    return tensors


class FrameReader:
    """Frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """Take bytes; give each frame that is whole now."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _PREFIX.size:
            length, kind, number = _PREFIX.unpack_from(buffer)
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            payload = bytes(memoryview(buffer)[_PREFIX.size : end])
            del buffer[:end]
            yield Kind(kind), number, payload


def _pack_texts(array: Array) -> bytes:
    return b"".join(_LENGTH.pack(len(value)) + value for value in array.ravel())


def _unpack_texts(data: bytes, shape: tuple[int, ...]) -> Array:
    values, at = [], 0
    while at < len(data):
        size = _LENGTH.unpack_from(data, at)[0]
        at += _LENGTH.size
        values.append(data[at : at + size])
        at += size
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
