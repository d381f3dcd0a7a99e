"""Where fuzzing begins: sound inputs of every kind, the bad requests of the corpus, and words the readers look for."""

import gzip
import json
import struct
from pathlib import Path
from typing import Final

import yaml
from tests.fuzz.targets import SIGNATURES

from modelyard.foundation.http2 import hpack

CORPUS: Final = Path(__file__).parent.parent / "corpora" / "bad_requests.yaml"
_LARGEST: Final = 4096
GOOD: Final = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2.5,-3e2]}]}'


def _corpus() -> list[bytes]:
    document = yaml.safe_load(CORPUS.read_text())
    names: dict = {}
    exec(document["prelude"].replace("%%KEY%%", "none"), names)
    built = [eval(case["construct"], names) for case in document["cases"] if case["kind"] == "raw"]
    return [data for data in built if isinstance(data, bytes) and len(data) <= _LARGEST]


def _http() -> list[bytes]:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    plain = head + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\n{} \r\n0\r\nX: y\r\n\r\n"
    packed = gzip.compress(GOOD, mtime=0)
    zipped = head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wait = head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"
    whole = [plain, chunked, zipped, get, wait, get + plain + get, plain + plain, chunked + get, *_corpus()]
    return [bytes([index % 7]) + data for index, data in enumerate(whole)]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _http2() -> list[bytes]:
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/t.T/Echo"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    block = hpack.encode(fields)
    message = b"\0" + struct.pack(">I", 2) + b"hi"
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0)
    call = _frame(1, 4, 1, block) + _frame(0, 1, 1, message)
    parts = _frame(1, 0, 3, block[:9]) + _frame(9, 4, 3, block[9:]) + _frame(0, 9, 3, b"\2" + message + b"\0\0")
    rest = _frame(6, 0, 0, bytes(8)) + _frame(8, 0, 0, struct.pack(">I", 99)) + _frame(3, 0, 1, bytes(4))
    more = _frame(4, 0, 0, struct.pack(">HI", 4, 70_000) + struct.pack(">HI", 1, 0)) + _frame(7, 0, 0, bytes(8))
    whole = [
        start,
        start + call,
        start + call + parts,
        start + rest + call,
        start + more + call,
        call,
        b"GET / HTTP/1.1",
    ]
    return [bytes([index]) + data for index, data in enumerate(whole)]


def _json() -> list[bytes]:
    texts = (
        *('{"a":[1,2,{"b":null}],"c":"\\u00e9\\ud83d\\ude00"}', "[-0.0,1e-7,12345678901234567890,true,false]", '""'),
        *('{"a":1,"\\u0061":2}', "[[[[[[]]]]]]", '{"x":"\\"}","y":"\\\\"}', " {} ", "[NaN,Infinity]", "1.0E+400"),
    )
    return [GOOD, *(text.encode() for text in texts)]


def _binary() -> list[bytes]:
    found = [bytes([0, 0, 0]) + GOOD]
    for index, signature in enumerate(SIGNATURES):
        inputs = [
            {"name": s.name, "shape": [2 if d < 0 else d for d in s.shape], "datatype": s.datatype.value}
            for s in signature.contract.inputs
        ]
        for form in range(4):
            lead = bytes([index + form * len(SIGNATURES)])
            if form == 0:
                plain = [each | {"data": [1] * _count(each["shape"])} for each in inputs]
                found.append(lead + b"\0\0" + json.dumps({"id": "7", "inputs": plain}).encode())
                continue
            raw = [_bytes(each) for each in inputs]
            named = [each | {"parameters": {"binary_data_size": len(r)}} for each, r in zip(inputs, raw, strict=True)]
            text = json.dumps({"inputs": named, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})
            body = (b"" if form == 1 else text.encode()) + b"".join(raw)
            found.append(lead + struct.pack("<H", len(text)) + body)
    return found


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _bytes(tensor: dict) -> bytes:
    sizes = {"FP32": 4, "INT8": 1, "BOOL": 1, "UINT64": 8, "FP16": 2}
    count = _count(tensor["shape"])
    return b"\1\0\0\0a" * count if tensor["datatype"] == "BYTES" else bytes(sizes[tensor["datatype"]] * count)


SEEDS: Final = {"http": _http, "http2": _http2, "json": _json, "binary": _binary}
_HTTP_WORDS: Final = (
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: ", b"Host: localhost\r\n", b"\r\n"),
    *(
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"HTTP/1.0",
        b" HTTP/1.1\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"Content-Encoding: gzip\r\n",
        b"GET ",
        b"HEAD ",
        b"chunked, ",
        b"identity",
        b"ffffffff",
    ),
)
_JSON_WORDS: Final = (
    *(
        b'"inputs"',
        b'"outputs"',
        b'"parameters"',
        b'"binary_data_size"',
        b'"shape"',
        b'"datatype"',
        b'"data"',
        b'"FP32"',
    ),
    *(
        b'"BYTES"',
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"\\u",
        b"\\ud800",
        b"null",
        b"true",
        b"-",
        b"1e999",
        b"NaN",
        b"0.1",
        b":",
    ),
)
WORDS: Final = {
    "http": _HTTP_WORDS,
    "http2": tuple(_frame(kind, flags, 1, b"") for kind in range(10) for flags in (0, 1, 4, 5)),
    "json": _JSON_WORDS,
    "binary": _JSON_WORDS,
}
