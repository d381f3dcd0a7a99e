"""The frames of own code's program, for interpreters from 3.9 on: what `inference/routing/frames.py` is elsewhere.

Loaded by path by `own_code_shim.py`, in an environment where Modelyard is not installed. Needs NumPy, once arrays come.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ICN001, PLR2004
# mypy: ignore-errors
# It runs on interpreters from 3.9 on, outside our own process: plain constructs, no annotations to evaluate.
import struct

HELLO, RUN, ANSWER, FAILURE, PING, PONG, DROP, DROPPED, STREAM, PART, END, MORE = range(1, 13)
PREFIX = struct.Struct("<IBQ")
LENGTH = struct.Struct("<I")
_BESIDE_LENGTH = PREFIX.size - LENGTH.size


# The part of MessagePack (its specification, "Formats") that frames are made of.


def pack(value):
    """MessagePack of None, truth, numbers, text, lists and mappings."""
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value, out):
    if value is None:
        out.append(0xC0)
    elif isinstance(value, bool):
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, float):
        out += b"\xcb" + struct.pack(">d", value)
    elif isinstance(value, int):
        out += b"\xd3" + struct.pack(">q", value) if not 0 <= value < 128 else bytes((value,))
    elif isinstance(value, str):
        data = value.encode()
        out += b"\xdb" + struct.pack(">I", len(data)) + data
    elif isinstance(value, dict):
        out += b"\xdf" + struct.pack(">I", len(value))
        for key, item in value.items():
            _pack(key, out)
            _pack(item, out)
    else:
        out += b"\xdd" + struct.pack(">I", len(value))
        for item in value:
            _pack(item, out)


_SIZED = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_TEXTS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I"}


def unpack(data, at=0):
    """(value, where it ends) of text, whole numbers and lists."""
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if 0x90 <= kind < 0xA0:
        return _unpack_list(data, at, kind & 0x0F)
    if 0xA0 <= kind < 0xC0:
        end = at + (kind & 0x1F)
        return data[at:end].decode(), end
    if kind in _SIZED:
        form = _SIZED[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if kind in _TEXTS:
        form = _TEXTS[kind]
        size = struct.unpack_from(form, data, at)[0]
        at += struct.calcsize(form)
        return data[at : at + size].decode(), at + size
    if kind in _LISTS:
        form = _LISTS[kind]
        return _unpack_list(data, at + struct.calcsize(form), struct.unpack_from(form, data, at)[0])
    raise ValueError("a frame holds what frames do not hold")


def _unpack_list(data, at, count):
    items = []
    for _ in range(count):
        item, at = unpack(data, at)
        items.append(item)
    return items, at


def frame(kind, number, payload=b""):
    """A whole frame."""
    return PREFIX.pack(_BESIDE_LENGTH + len(payload), kind, number) + payload


def unpack_tensors(payload):
    """Arrays by name; numbers share the payload's memory and are read-only."""
    import numpy

    size = LENGTH.unpack_from(payload)[0]
    at = LENGTH.size + size
    heads, _ = unpack(payload[LENGTH.size : at])
    tensors = {}
    for name, kind, shape, length in heads:
        if kind == "O":
            tensors[name] = _unpack_texts(payload[at : at + length]).reshape(shape)
        else:
            dtype = numpy.dtype(kind)
            tensors[name] = numpy.frombuffer(payload, dtype, length // dtype.itemsize, at).reshape(shape)
        at += length
    return tensors


def pack_tensors(tensors):
    """Arrays by name as a payload."""
    import numpy

    heads, bodies = [], []
    for name, array in tensors.items():
        if array.dtype.hasobject:
            body, kind = b"".join(LENGTH.pack(len(item)) + item for item in array.ravel()), "O"
        else:
            body, kind = numpy.ascontiguousarray(array).tobytes(), array.dtype.str
        heads.append([name, kind, list(array.shape), len(body)])
        bodies.append(body)
    head = pack(heads)
    return b"".join((LENGTH.pack(len(head)), head, *bodies))


def _unpack_texts(data):
    import numpy

    values, at = [], 0
    while at < len(data):
        size = LENGTH.unpack_from(data, at)[0]
        at += LENGTH.size
        values.append(data[at : at + size])
        at += size
    array = numpy.empty(len(values), dtype=object)
    array[:] = values
    return array
