"""Any bytes, cut anywhere: no exception, no hang, no memory kept; and HPACK held against its reference examples."""

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import PREFACE, SETTINGS, block, call, frame

from modelyard.foundation.http.edge import Edge, EdgeSettings
from modelyard.foundation.http2 import Http2Limits, Methods, hpack
from modelyard.foundation.http2.connection import Http2Connection
from modelyard.foundation.http2.outflow import Turns
from modelyard.foundation.http2.shared import Shared

BEGIN = PREFACE + frame(SETTINGS, 0, 0)
FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.integers(0, 255) | st.sampled_from([0, 1, 4, 5, 8, 32]),
    st.integers(0, 9) | st.integers(0, 2**31 - 1),
    st.binary(max_size=40) | st.just(block()) | st.just(b"\0\0\0\0\2hi"),
)


class Sink(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        self.data += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def can_write_eof(self):
        return False

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self):
        return 0


def talk(pieces: list[bytes]) -> tuple[bytes, Edge]:
    """What the server says to `pieces`."""
    loop = asyncio.new_event_loop()
    try:
        edge = Edge(EdgeSettings(), loop)
        methods = Methods({b"/t.T/Echo": lambda call: call.reply(call.message)})
        connection = Http2Connection(Shared(edge, Http2Limits(), Turns(loop)), methods)
        sink = Sink()
        connection.connection_made(sink)
        for piece in pieces:
            connection.data_received(piece)
        loop.run_until_complete(asyncio.sleep(0))
        connection.connection_lost(None)
        edge.stop()
        assert not connection.intake.arriving
        assert not connection.intake.calls
    finally:
        loop.close()
    return sink.data, edge


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES | st.binary(max_size=60) | st.just(call(1)), max_size=12).map(b"".join))
def test_no_bytes_make_it_raise_or_keep_memory(data):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("modelyard.foundation.http2.connection")
    logger.addHandler(handler)
    try:
        _, edge = talk([BEGIN + data])
    finally:
        logger.removeHandler(handler)
    assert records == []
    assert edge.buffered == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAMES, max_size=8).map(b"".join), st.lists(st.integers(1, 50), max_size=30))
def test_how_bytes_are_split_changes_nothing(data, cuts):
    whole = BEGIN + call(1, b"x" * 30) + data
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    pieces.append(whole[at:])
    assert talk([each for each in pieces if each])[0] == talk([whole])[0]


EXAMPLES = [  # RFC 7541, appendix C.4 and C.6: a connection's blocks in a row
    (["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf"],
     [[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
      [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"),
       (b"cache-control", b"no-cache")]]),
    (["400a637573746f6d2d6b65790d637573746f6d2d686561646572", "be"],
     [[(b"custom-key", b"custom-header")], [(b"custom-key", b"custom-header")]]),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "expected"), EXAMPLES)
def test_hpack_reads_the_examples_of_its_rfc(blocks, expected):
    decoder = hpack.Decoder(max_list=1 << 16, max_fields=100)
    assert [decoder.decode(bytes.fromhex(each)) for each in blocks] == expected


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=10))
def test_hpack_reads_what_it_writes(fields):
    assert hpack.Decoder(max_list=1 << 20, max_fields=100).decode(hpack.encode(fields)) == fields


@given(st.binary(max_size=200))
def test_hpack_takes_any_bytes(data):
    decoder = hpack.Decoder(max_list=4096, max_fields=20)
    try:
        fields = decoder.decode(data)
    except hpack.HpackError:
        return
    assert fields is None or len(fields) <= 20
    assert decoder._size <= hpack.TABLE_SIZE


def test_hpack_keeps_no_more_than_its_table():
    decoder = hpack.Decoder(max_list=1 << 20, max_fields=1000)
    for n in range(300):
        decoder.decode(b"\x40" + hpack.encode([(b"k%d" % n, b"v" * 100)])[1:])
    assert decoder._size <= hpack.TABLE_SIZE
    assert len(decoder._entries) < 40
