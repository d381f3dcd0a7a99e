"""Each rule of RFC 9113 that a client can break, and the error it gets (the sections that h2spec walks through)."""

import asyncio
import gzip

import pytest
from wire_client import (
    ACK,
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIO,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    block,
    call,
    frame,
    message,
    setting,
    until,
    word,
)  # fmt: skip

from modelyard.foundation.http import EdgeLimits
from modelyard.foundation.http2 import GrpcSettings, Http2Limits, hpack

PROTOCOL, INTERNAL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 2, 3, 5, 6, 7, 9, 11
OPEN = frame(HEADERS, END_HEADERS, 1, block())
HELD = frame(HEADERS, END_HEADERS, 1, block((b":path", b"/t.T/Hold"), without=(b":path",)))
HOLD_BLOCK = hpack.encode([(n, b"/t.T/Hold" if n == b":path" else v) for n, v in CALL])
HOLD = frame(HEADERS, END_HEADERS, 1, HOLD_BLOCK) + frame(DATA, END_STREAM, 1, message(b""))

CONNECTION_ERRORS = {
    "3.4 SETTINGS do not come first": (PREFACE + frame(PING, 0, 0, b"8" * 8), PROTOCOL),
    "3.4 the preface is something else": (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + b"x" * 30, PROTOCOL),
    "4.2 a frame over the limit": (OPEN + frame(DATA, 0, 1, b"x" * 65537), SIZE),
    "4.3 a block that cannot be read": (
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION,
    ),
    "4.3 an index that is not there": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xfe"), COMPRESSION),
    "4.3 a table size update that is too large": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03"), COMPRESSION),
    "4.3 another frame within a block": (frame(HEADERS, 0, 1, block()) + frame(PRIORITY, 0, 1, b"\0" * 5), PROTOCOL),
    "4.3 another stream within a block": (frame(HEADERS, 0, 1, block()) + OPEN, PROTOCOL),
    "5.1 DATA on an idle stream": (frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (frame(RST, 0, 1, word(8)), PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (frame(WINDOW, 0, 1, word(8)), PROTOCOL),
    "5.1 CONTINUATION on an idle stream": (frame(CONTINUATION, END_HEADERS, 1, block()), PROTOCOL),
    "5.1 HEADERS on a closed stream": (call(1) + call(1), CLOSED),
    "5.1.1 an even stream": (frame(HEADERS, END_HEADERS, 2, block()), PROTOCOL),
    "5.1.1 a lower stream": (call(5) + call(3), PROTOCOL),
    "5.3 HEADERS that depend on themselves": (
        frame(HEADERS, END_HEADERS | PRIO, 1, word(1) + b"\1" + block()), PROTOCOL,
    ),
    "6.1 DATA without a stream": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "6.1 DATA with too much padding": (OPEN + frame(DATA, PADDED, 1, b"\x09abc"), PROTOCOL),
    "6.1 DATA padded, without a length": (OPEN + frame(DATA, PADDED, 1, b""), SIZE),
    "6.2 HEADERS without a stream": (frame(HEADERS, END_HEADERS, 0, block()), PROTOCOL),
    "6.2 HEADERS with too much padding": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block()), PROTOCOL),
    "6.2 HEADERS too short for a priority": (frame(HEADERS, END_HEADERS | PRIO, 1, b"\0\0"), SIZE),
    "6.3 PRIORITY without a stream": (frame(PRIORITY, 0, 0, b"\0" * 5), PROTOCOL),
    "6.4 RST_STREAM without a stream": (frame(RST, 0, 0, word(8)), PROTOCOL),
    "6.4 RST_STREAM of a wrong size": (HOLD + frame(RST, 0, 1, b"\0\0\0"), SIZE),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "6.5 SETTINGS of a wrong size": (frame(SETTINGS, 0, 0, b"\0\0\0"), SIZE),
    "6.5 an acknowledgement that says something": (frame(SETTINGS, ACK, 0, setting(4, 1)), SIZE),
    "6.5.2 ENABLE_PUSH of 2": (frame(SETTINGS, 0, 0, setting(2, 2)), PROTOCOL),
    "6.5.2 a window over 2**31 - 1": (frame(SETTINGS, 0, 0, setting(4, 2**31)), FLOW),
    "6.5.2 frames below 16,384": (frame(SETTINGS, 0, 0, setting(5, 16383)), PROTOCOL),
    "6.5.2 frames over 2**24 - 1": (frame(SETTINGS, 0, 0, setting(5, 2**24)), PROTOCOL),
    "6.6 PUSH_PROMISE": (frame(PUSH, END_HEADERS, 1, word(2) + block()), PROTOCOL),
    "6.7 PING on a stream": (frame(PING, 0, 1, b"8" * 8), PROTOCOL),
    "6.7 PING of a wrong size": (frame(PING, 0, 0, b"7" * 7), SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, b"\0" * 8), PROTOCOL),
    "6.8 GOAWAY of a wrong size": (frame(GOAWAY, 0, 0, b"\0" * 4), SIZE),
    "6.9 WINDOW_UPDATE by nothing": (frame(WINDOW, 0, 0, word(0)), PROTOCOL),
    "6.9 WINDOW_UPDATE of a wrong size": (frame(WINDOW, 0, 0, b"\0\0\1"), SIZE),
    "6.9.1 a connection window that is too large": (frame(WINDOW, 0, 0, word(2**31 - 1)), FLOW),
    "6.10 CONTINUATION after the end of a block": (OPEN + frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL),
    "6.10 CONTINUATION without a stream": (
        frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, END_HEADERS, 0), PROTOCOL,
    ),
    "CONTINUATION without end": (frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1) * 9, CALM),
    "a header block without end": (frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1, b"\0" * 33000), CALM),
    "a flood of PING": (frame(PING, 0, 0, b"8" * 8) * 4100, CALM),
    "a flood of SETTINGS": (frame(SETTINGS, 0, 0) * 4100, CALM),
    "a flood of empty DATA": (OPEN + frame(DATA, 0, 1) * 4100, CALM),
    "a flood of unknown frames": (frame(0x77, 0, 0, b"x") * 4100, CALM),
    "rapid resets": (b"".join(
        frame(HEADERS, END_HEADERS, sid, block()) + frame(RST, 0, sid, word(8)) for sid in range(1, 2400, 2)), CALM),
}  # fmt: skip

STREAM_ERRORS = {
    "5.1 DATA after END_STREAM": (HOLD + frame(DATA, END_STREAM, 1, b"x"), CLOSED),
    "5.1 HEADERS after END_STREAM": (HOLD + frame(HEADERS, END_HEADERS | END_STREAM, 1, block()), CLOSED),
    "5.1 DATA on a stream that the client reset": (OPEN + frame(RST, 0, 1, word(8)) + frame(DATA, 0, 1, b"x"), CLOSED),
    "5.3 PRIORITY that depends on itself": (OPEN + frame(PRIORITY, 0, 1, word(1) + b"\1"), PROTOCOL),
    "6.3 PRIORITY of a wrong size": (OPEN + frame(PRIORITY, 0, 1, b"\0" * 4), SIZE),
    "6.9 a stream's WINDOW_UPDATE by nothing": (OPEN + frame(WINDOW, 0, 1, word(0)), PROTOCOL),
    "6.9.1 a stream window that is too large": (OPEN + frame(WINDOW, 0, 1, word(2**31 - 1)), FLOW),
    "6.9.1 a held stream's window that is too large": (HOLD + frame(WINDOW, 0, 1, word(2**31 - 1)), FLOW),
    "8.1 a second block that does not end": (OPEN + frame(HEADERS, END_HEADERS, 1, b""), PROTOCOL),
    "8.1 pseudo-header fields in trailers": (OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, block()), PROTOCOL),
}  # fmt: skip

BAD_FIELDS = {
    "an upper-case name": block((b"X-Bad", b"1")),
    "an unknown pseudo-header": hpack.encode([(b":test", b"ok"), *CALL]),
    "a response pseudo-header": hpack.encode([(b":status", b"200"), *CALL]),
    "a late pseudo-header": block((b":method", b"POST")),
    "connection": block((b"connection", b"keep-alive")),
    "transfer-encoding": block((b"transfer-encoding", b"chunked")),
    "te: gzip": block((b"te", b"gzip")),
    "no method": block(without=(b":method",)),
    "no scheme": block(without=(b":scheme",)),
    "no path": block(without=(b":path",)),
    "an empty path": hpack.encode([(b":path", b""), *[each for each in CALL if each[0] != b":path"]]),
    "two paths": hpack.encode([(b":path", b"/t.T/Echo"), *CALL]),
    "a line break in a value": block((b"x-a", b"1\r\nx-b: 2")),
    "a NUL in a value": block((b"x-a", b"1\x002")),
    "space at the end of a value": block((b"x-a", b"1 ")),
    "an empty name": block((b"", b"1")),
    "a content length that is no number": block((b"content-length", b"-1")),
    "two content lengths": block((b"content-length", b"7"), (b"content-length", b"7")),
    "a content length that is wrong": block((b"content-length", b"3")),
}


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
async def test_the_connection_ends_with_the_right_code(case, start, connect):
    sent, code = CONNECTION_ERRORS[case]
    first = sent if case.startswith("3.4") else PREFACE + frame(SETTINGS, 0, 0) + sent
    listener = await start()
    client = await connect(listener, first)
    got = await client.until(GOAWAY)
    assert got.code == code, got.payload
    while await client.next() is not None:
        pass


@pytest.mark.parametrize("case", STREAM_ERRORS)
async def test_the_stream_is_reset_and_the_connection_lives(case, start, connect):
    sent, code = STREAM_ERRORS[case]
    client = await connect(await start())
    client.send(sent)
    assert await client.fault() == ("reset", code)
    assert await client.is_alive(3)


@pytest.mark.parametrize("case", BAD_FIELDS)
async def test_malformed_fields_reset_the_stream(case, start, connect):
    client = await connect(await start())
    client.send(frame(HEADERS, END_HEADERS, 1, BAD_FIELDS[case]) + frame(DATA, END_STREAM, 1, message(b"hi")))
    assert await client.fault() == ("reset", PROTOCOL)
    assert await client.is_alive(3)


REFUSALS = {
    "a GET": (hpack.encode([(b":method", b"GET"), *CALL[1:]]), message(b"a"), b"13", b"405"),
    "another content type": (
        block((b"content-type", b"application/json"), without=(b"content-type",)), b"{}", b"13", b"415",
    ),
    "an unknown method": (block((b"x", b"y")).replace(b"/t.T/Echo", b"/t.T/Nope"), message(b"a"), b"12", b"200"),
    "an unknown encoding": (block((b"grpc-encoding", b"snappy")), message(b"a"), b"12", b"200"),
    "a bad timeout": (block((b"grpc-timeout", b"soon")), message(b"a"), b"13", b"200"),
    "too much metadata": (block(*[(b"x%d" % n, b"v" * 1000) for n in range(17)]), message(b"a"), b"8", b"200"),
    "too many fields": (block(*[(b"x%d" % n, b"v") for n in range(101)]), message(b"a"), b"8", b"200"),
    "no message": (block(), b"", b"12", b"200"),
    "two messages": (block(), message(b"a") * 2, b"12", b"200"),
    "a message cut short": (block(), message(b"abcdef")[:8], b"13", b"200"),
    "compressed without saying how": (block(), message(gzip.compress(b"a"), 1), b"13", b"200"),
    "compressed, but no gzip": (block((b"grpc-encoding", b"gzip")), message(b"abc", 1), b"13", b"200"),
    "a gzip bomb": (block((b"grpc-encoding", b"gzip")), message(gzip.compress(bytes(5 << 20)), 1), b"8", b"200"),
    "a message over the limit": (block(), message(bytes(1 << 20) + b"1"), b"8", b"200"),
    "a handler that breaks": (block().replace(b"\x09/t.T/Echo", b"\x0b/t.T/Broken"), message(b"a"), b"13", b"200"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_call_that_cannot_be_taken_gets_a_grpc_status(case, start, connect):
    head, body, status, http = REFUSALS[case]
    client = await connect(await start(GrpcSettings(edge=EdgeLimits(max_body_bytes=1 << 20))))
    pieces = [body[at : at + 60000] for at in range(0, len(body), 60000)] or [b""]
    sent = b"".join(frame(DATA, 0, 1, each) for each in pieces[:-1]) + frame(DATA, END_STREAM, 1, pieces[-1])
    client.send(frame(HEADERS, END_HEADERS, 1, head) + sent)
    fields, got = await client.answer(1)
    assert (fields[b"grpc-status"], fields[b":status"], got) == (status, http, b"")
    assert b"secret" not in fields.get(b"grpc-message", b"")
    assert await client.is_alive(3)


async def test_padding_priority_unknown_frames_and_split_blocks_are_taken(start, connect, served):
    client = await connect(await start())
    head = block()
    client.send(frame(HEADERS, PADDED | PRIO, 1, b"\x04" + word(0) + b"\x10" + head[:20] + b"\0" * 4))
    client.send(frame(CONTINUATION, 0, 1, head[20:30]) + frame(CONTINUATION, END_HEADERS, 1, head[30:]))
    client.send(frame(0xFE, 0xFF, 1, b"??") + frame(DATA, PADDED, 1, b"\x02" + message(b"hi")[:3] + b"\0\0"))
    client.send(frame(DATA, 0, 1, message(b"hi")[3:]) + frame(HEADERS, END_HEADERS | END_STREAM, 1, b""))
    fields, body = await client.answer(1)
    assert (fields[b":status"], fields[b"content-type"], fields[b"grpc-status"]) == (b"200", b"application/grpc", b"0")
    assert body == message(b"hi")


async def test_ping_and_settings_are_acknowledged(start, connect):
    client = await connect(await start())
    client.send(frame(PING, 0, 0, b"12345678"))
    got = await client.until(PING)
    assert (got.flags, got.payload) == (ACK, b"12345678")


async def test_an_answer_waits_for_both_windows(start, connect):
    client = await connect(await start(), PREFACE + frame(SETTINGS, 0, 0, setting(4, 10)))
    client.send(call(1, b"x" * 95))
    got = await client.until(DATA)
    assert len(got.payload) == 10
    client.send(frame(WINDOW, 0, 1, word(40)))
    assert len((await client.until(DATA)).payload) == 40
    client.send(frame(SETTINGS, 0, 0, setting(4, 30)))  # twenty more for every stream
    assert len((await client.until(DATA)).payload) == 20
    client.send(frame(SETTINGS, 0, 0, setting(4, 0)) + frame(WINDOW, 0, 1, word(60)))  # -30 + 60
    assert len((await client.until(DATA)).payload) == 30
    assert (await client.until(HEADERS)).flags == END_HEADERS | END_STREAM


async def test_the_connection_window_is_shared(start, connect):
    client = await connect(await start(), PREFACE + frame(SETTINGS, 0, 0, setting(4, 2**31 - 1)))
    for sid in (1, 3):
        client.send(call(sid, b"x" * 60000))
    got = {1: 0, 3: 0}
    while sum(got.values()) < 65535:
        piece = await client.until(DATA)
        got[piece.sid] += len(piece.payload)
        assert len(piece.payload) <= 16384
    assert sum(got.values()) == 65535
    assert min(got.values()) > 5000
    client.send(frame(WINDOW, 0, 0, word(100_000)))
    while sum(got.values()) < 120_010:
        piece = await client.until(DATA)
        got[piece.sid] += len(piece.payload)
    assert set(got.values()) == {60005}


async def test_sending_over_a_window_is_a_flow_control_error(start, connect):
    limits = Http2Limits(stream_window_bytes=65535, connection_window_bytes=65535, max_frame_bytes=200_000)
    listener = await start(GrpcSettings(http2=limits))
    client = await connect(listener)
    client.send(OPEN + frame(DATA, 0, 1, b"\0" * 65536))
    assert await client.fault() == ("goaway", FLOW)
    wide = await start(GrpcSettings(http2=Http2Limits(stream_window_bytes=65535, max_frame_bytes=200_000)))
    client = await connect(wide)
    client.send(OPEN + frame(DATA, 0, 1, b"\0" * 65536))
    assert await client.fault() == ("reset", FLOW)


async def test_windows_are_given_back_as_they_are_used(start, connect):
    limits = Http2Limits(stream_window_bytes=65535, connection_window_bytes=65535)
    client = await connect(await start(GrpcSettings(http2=limits)))
    client.send(OPEN + frame(DATA, 0, 1, message(b"x" * 200_000)[:40_000]))
    seen = {(await client.until(WINDOW)).sid, (await client.until(WINDOW)).sid}
    assert seen == {0, 1}


async def test_more_calls_than_allowed_are_refused_to_be_tried_again(start, connect):
    client = await connect(await start(GrpcSettings(http2=Http2Limits(max_streams=2))))
    for sid in (1, 3, 5):
        client.send(frame(HEADERS, END_HEADERS, sid, HOLD_BLOCK) + frame(DATA, END_STREAM, sid, message(b"")))
    assert (await client.until(RST, 5)).code == REFUSED


async def test_a_reset_cancels_the_call(start, connect, served):
    client = await connect(await start())
    client.send(HOLD + frame(RST, 0, 1, word(8)))
    assert await client.is_alive(3)
    assert served.cancelled == 1
    assert served.held[0].cancelled
    served.held[0].reply(b"too late")  # dropped, not an error
    assert await client.is_alive(5)
    with pytest.raises(RuntimeError):
        served.held[0].reply(b"twice")


async def test_a_lost_connection_cancels_its_calls(start, connect, served):
    client = await connect(await start())
    client.send(HOLD)
    async with asyncio.timeout(5):
        await until(lambda: served.held)
        client.writer.transport.abort()
        await until(lambda: served.cancelled)


async def test_http1_is_told_in_its_own_words(start, connect):
    client = await connect(await start(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await client.reader.read()).startswith(b"HTTP/1.1 505 ")


QUICK = GrpcSettings(edge=EdgeLimits(receipt_deadline_s=0.3, idle_s=0.4, write_deadline_s=0.5, linger_s=0.1))


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0) + b"\0\0"])
async def test_a_connection_that_does_not_go_on_is_ended(sent, start, connect):
    client = await connect(await start(QUICK), sent)
    async with asyncio.timeout(5):
        assert b"a frame did not arrive in time" in await client.reader.read()


async def test_an_idle_connection_gets_a_goodbye_without_error(start, connect):
    client = await connect(await start(QUICK))
    got = await client.until(GOAWAY)
    assert (got.code, got.payload[8:]) == (0, b"idle")


async def test_a_message_that_does_not_arrive_in_time_fails_the_call_only(start, connect):
    client = await connect(await start(QUICK))
    client.send(OPEN + frame(DATA, 0, 1, message(b"hello")[:3]))
    fields, _ = await client.answer(1)
    assert fields[b"grpc-status"] == b"4"
    assert await client.is_alive(3)


async def test_a_client_that_gives_no_window_is_ended(start, connect):
    client = await connect(await start(QUICK), PREFACE + frame(SETTINGS, 0, 0, setting(4, 0)))
    client.send(call(1, b"never taken"))
    assert (await client.until(GOAWAY)).code == CALM


async def test_what_is_received_by_all_is_bounded(start, connect):
    listener = await start(GrpcSettings(edge=EdgeLimits(max_buffered_bytes=100_000)))
    client = await connect(listener)
    client.send(OPEN + frame(DATA, 0, 1, message(b"x" * 190_000)[:60_000]) + frame(DATA, 0, 1, b"x" * 60_000))
    fields, _ = await client.answer(1)
    assert fields[b"grpc-status"] == b"8"
    assert await client.is_alive(3)
    assert listener._edge.buffered == 0


async def test_a_drain_answers_what_is_under_way_and_then_closes(start, connect, served):
    listener = await start()
    client = await connect(listener)
    client.send(HOLD)
    async with asyncio.timeout(5):
        await until(lambda: served.held)
    closing = asyncio.ensure_future(listener.close(drain_s=5))
    first = await client.until(GOAWAY)
    assert (first.code, first.payload[:4]) == (0, word(2**31 - 1))
    ping = await client.until(PING)
    client.send(call(3, b"opened before the client knew") + frame(PING, ACK, 0, ping.payload))
    fields, _ = await client.answer(3)
    assert fields[b"grpc-status"] == b"0"
    assert (await client.until(GOAWAY)).payload[:4] == word(3)
    served.held[0].reply(b"done")
    _, body = await client.answer(1)
    assert body == message(b"done")
    assert await client.next() is None
    client.writer.close()
    await closing
