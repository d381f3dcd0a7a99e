"""Streams: messages both ways in tiny pieces and tiny windows, half close, cancellation, deadlines, hostile frames."""

import asyncio
import gzip
import logging

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_http2_hostile import BEGIN, FRAMES, Sink
from wire_client import (
    CALL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    WINDOW,
    frame,
    message,
    setting,
    until,
    word,
)  # fmt: skip

from modelyard.foundation.http import EdgeLimits
from modelyard.foundation.http.edge import Edge, EdgeSettings
from modelyard.foundation.http2 import GrpcSettings, Http2Limits, Methods, StreamCall, hpack
from modelyard.foundation.http2.connection import Http2Connection
from modelyard.foundation.http2.outflow import Turns
from modelyard.foundation.http2.shared import Shared

CANCEL, PROTOCOL, FLOW, CLOSED = 8, 1, 3, 5


def head(path: bytes, *more: tuple[bytes, bytes], sid: int = 1, flags: int = END_HEADERS) -> bytes:
    fields = [(name, path if name == b":path" else value) for name, value in CALL]
    return frame(HEADERS, flags, sid, hpack.encode([*fields, *more]))


CHAT = head(b"/t.T/Chat")


async def test_each_message_is_answered_as_soon_as_it_is_whole(start, connect):
    client = await connect(await start())
    client.send(CHAT + frame(DATA, 0, 1, message(b"one") + message(b"two")[:3]))
    assert (await client.until(DATA)).payload == message(b"one")
    client.send(frame(DATA, 0, 1, message(b"two")[3:]))
    assert (await client.until(DATA)).payload == message(b"two")
    client.send(frame(DATA, END_STREAM, 1))
    fields, rest = await client.answer(1)
    assert (fields[b"grpc-status"], rest) == (b"0", b"")


async def test_a_half_close_may_come_with_the_last_message_or_as_trailers(start, connect):
    client = await connect(await start())
    client.send(CHAT + frame(DATA, END_STREAM, 1, message(b"last")))
    fields, body = await client.answer(1)
    assert (fields[b"grpc-status"], body) == (b"0", message(b"last"))
    client.send(head(b"/t.T/Chat", sid=3) + frame(DATA, 0, 3, message(b"x")))
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, hpack.encode([(b"bye", b"1")])))
    fields, body = await client.answer(3)
    assert (fields[b"grpc-status"], body) == (b"0", message(b"x"))


async def test_a_stream_without_a_message_ends_well_with_trailers_only(start, connect):
    client = await connect(await start())
    client.send(head(b"/t.T/Chat", flags=END_HEADERS | END_STREAM))
    got = await client.until(HEADERS)
    fields = dict(client.decoder.decode(got.payload))
    assert got.flags == END_HEADERS | END_STREAM
    assert (fields[b":status"], fields[b"grpc-status"]) == (b"200", b"0")


async def test_many_messages_pass_windows_of_a_few_bytes(start, connect):
    client = await connect(await start(), PREFACE + frame(SETTINGS, 0, 0, setting(4, 7)))
    sent = b"".join(message(b"%d" % n * 5) for n in range(20))
    client.send(CHAT + frame(DATA, END_STREAM, 1, sent))
    got = b""
    while True:
        piece = await client.next()
        assert piece is not None
        if piece.kind == DATA:
            assert len(piece.payload) <= 7
            got += piece.payload
            client.send(frame(WINDOW, 0, 1, word(len(piece.payload))) + frame(WINDOW, 0, 0, word(len(piece.payload))))
        elif piece.kind == HEADERS and piece.flags & END_STREAM:
            break
    assert got == sent


async def test_a_client_gets_window_as_its_messages_are_taken(start, connect):
    limits = Http2Limits(stream_window_bytes=65535, connection_window_bytes=65535)
    client = await connect(await start(GrpcSettings(http2=limits)))
    client.send(head(b"/t.T/Count"))
    room = {0: 65535, 1: 65535}
    for _ in range(20):
        while min(room.values()) < 30_005:
            given = await client.until(WINDOW)
            room[given.sid] += int.from_bytes(given.payload, "big")
        client.send(frame(DATA, 0, 1, message(b"x" * 30_000)))
        room = {sid: left - 30_005 for sid, left in room.items()}
    client.send(frame(DATA, END_STREAM, 1))
    _, body = await client.answer(1)
    assert body == message(b"20")


async def test_a_held_stream_gets_no_window_and_delivers_what_waits_when_it_goes_on(start, connect, served):
    limits = Http2Limits(stream_window_bytes=65535, connection_window_bytes=1 << 20)
    client = await connect(await start(GrpcSettings(http2=limits)))
    client.send(head(b"/t.T/Held") + frame(DATA, 0, 1, message(b"a" * 40_000)) + frame(DATA, 0, 1, message(b"b" * 100)))
    client.send(frame(PING, 0, 0, b"12345678"))
    while (got := await client.next()) is not None and got.kind != PING:
        assert not (got.kind == WINDOW and got.sid == 1)
    assert served.messages == []
    served.streams[0].go_on()
    assert (await client.until(WINDOW, 1)).payload == word(65535 - (65535 - 40_110))
    assert [len(each) for each in served.messages] == [40_000, 100]


async def test_more_than_a_streams_window_is_a_flow_control_error(start, connect):
    limits = Http2Limits(stream_window_bytes=65535, max_frame_bytes=200_000)
    client = await connect(await start(GrpcSettings(http2=limits)))
    client.send(head(b"/t.T/Held") + frame(DATA, 0, 1, b"\0" * 65536))
    assert await client.fault() == ("reset", FLOW)
    assert await client.is_alive(3)


async def test_a_server_that_ends_first_tells_the_client_to_stop_sending(start, connect):
    client = await connect(await start())
    client.send(head(b"/t.T/First") + frame(DATA, 0, 1, message(b"a")))
    fields, body = await client.answer(1)
    assert (fields[b"grpc-status"], body) == (b"0", message(b"a"))
    assert (await client.until(RST, 1)).code == 0
    client.send(frame(DATA, 0, 1, message(b"still under way")))
    assert await client.is_alive(3)


async def test_messages_before_a_failure_arrive_and_the_status_follows(start, connect):
    client = await connect(await start(), PREFACE + frame(SETTINGS, 0, 0, setting(4, 4)))
    client.send(head(b"/t.T/Fails") + frame(DATA, END_STREAM, 1, message(b"abc")))
    client.send(frame(WINDOW, 0, 1, word(100)))
    fields, body = await client.answer(1)
    assert (fields[b"grpc-status"], fields[b"grpc-message"], body) == (b"9", b"enough", message(b"abc"))
    assert b":status" in fields


async def test_a_reset_in_the_middle_tells_the_handler_and_drops_what_waits(start, connect, served):
    client = await connect(await start(), PREFACE + frame(SETTINGS, 0, 0, setting(4, 0)))
    client.send(CHAT + frame(DATA, 0, 1, message(b"never taken")))
    client.send(frame(RST, 0, 1, word(CANCEL)) + frame(SETTINGS, 0, 0, setting(4, 65535)))
    assert await client.is_alive(3)
    assert served.cancelled == 1
    served.streams[0].send(b"dropped")
    served.streams[0].finish()
    assert await client.is_alive(5)


async def test_data_after_the_half_close_resets_the_stream(start, connect, served):
    client = await connect(await start())
    client.send(head(b"/t.T/Held") + frame(DATA, END_STREAM, 1, message(b"x")) + frame(DATA, 0, 1, b"more"))
    assert await client.fault() == ("reset", CLOSED)
    assert served.cancelled == 1


async def test_a_wrong_content_length_resets_the_stream(start, connect):
    client = await connect(await start())
    client.send(head(b"/t.T/Chat", (b"content-length", b"7")) + frame(DATA, END_STREAM, 1, message(b"abcdef")))
    while (got := await client.next()) is not None and got.kind != RST:
        pass
    assert got is not None
    assert got.code == PROTOCOL


async def test_a_message_that_is_cut_short_too_large_or_badly_packed_ends_the_call(start, connect):
    cases = {
        1: (frame(DATA, END_STREAM, 1, message(b"abc")[:6]), (), b"13"),
        3: (frame(DATA, 0, 3, message(b"")[:1] + b"\x7f\xff\xff\xff"), (), b"8"),
        5: (frame(DATA, 0, 5, message(b"abc", 1)), (), b"13"),
        7: (frame(DATA, 0, 7, message(b"no gzip", 1)), ((b"grpc-encoding", b"gzip"),), b"13"),
        9: (frame(DATA, 0, 9, message(gzip.compress(bytes(5 << 20)), 1)), ((b"grpc-encoding", b"gzip"),), b"8"),
    }
    client = await connect(await start(GrpcSettings(edge=EdgeLimits(max_body_bytes=1 << 20))))
    for sid, (sent, more, status) in cases.items():
        client.send(head(b"/t.T/Chat", *more, sid=sid) + sent)
        fields, _ = await client.answer(sid)
        assert fields[b"grpc-status"] == status, sid
    assert await client.is_alive(11)


async def test_gzip_is_inflated_message_by_message(start, connect):
    client = await connect(await start())
    sent = message(gzip.compress(b"packed"), 1) + message(b"plain")
    client.send(head(b"/t.T/Chat", (b"grpc-encoding", b"gzip")) + frame(DATA, END_STREAM, 1, sent))
    _, body = await client.answer(1)
    assert body == message(b"packed") + message(b"plain")


async def test_a_stream_ends_when_its_deadline_has_passed(start, connect, served):
    quick = GrpcSettings(edge=EdgeLimits(receipt_deadline_s=1.0))
    client = await connect(await start(quick))
    client.send(head(b"/t.T/Chat", (b"grpc-timeout", b"100m")))
    fields, _ = await client.answer(1)
    assert fields[b"grpc-status"] == b"4"
    assert served.cancelled == 1


async def test_a_streamed_message_that_does_not_arrive_in_time_ends_the_call(start, connect, served):
    client = await connect(await start(GrpcSettings(edge=EdgeLimits(receipt_deadline_s=0.3))))
    client.send(CHAT + frame(DATA, 0, 1, message(b"hello")[:3]))
    fields, _ = await client.answer(1)
    assert fields[b"grpc-status"] == b"4"
    assert await client.is_alive(3)


async def test_a_silent_client_with_a_stream_is_asked_and_then_dropped(start, connect, served):
    limits = Http2Limits(keepalive_s=0.2, keepalive_timeout_s=0.2)
    client = await connect(await start(GrpcSettings(edge=EdgeLimits(receipt_deadline_s=0.3), http2=limits)))
    client.send(CHAT + frame(DATA, 0, 1, message(b"here")))
    ping = await client.until(PING)
    client.send(frame(PING, 1, 0, ping.payload))
    await client.until(PING)
    while await client.next() is not None:
        pass
    assert served.cancelled == 1


async def test_a_handler_that_breaks_ends_the_stream_and_says_nothing_of_why(start, connect):
    client = await connect(await start())
    client.send(head(b"/t.T/Breaks") + frame(DATA, 0, 1, message(b"x")))
    fields, _ = await client.answer(1)
    assert fields[b"grpc-status"] == b"13"
    assert b"secret" not in fields[b"grpc-message"]
    assert await client.is_alive(3)


async def test_streams_count_among_the_calls_at_once(start, connect):
    client = await connect(await start(GrpcSettings(http2=Http2Limits(max_streams=2))))
    client.send(CHAT + head(b"/t.T/Chat", sid=3) + head(b"/t.T/Chat", sid=5))
    assert (await client.until(RST, 5)).code == 7
    client.send(frame(DATA, END_STREAM, 1))
    await client.answer(1)
    assert await client.is_alive(7)


async def test_a_client_that_never_takes_its_stream_is_ended(start, connect, served):
    quick = GrpcSettings(edge=EdgeLimits(receipt_deadline_s=0.3, write_deadline_s=0.5, linger_s=0.1))
    client = await connect(await start(quick), PREFACE + frame(SETTINGS, 0, 0, setting(4, 0)))
    client.send(CHAT + frame(DATA, 0, 1, message(b"never taken")))
    assert (await client.until(GOAWAY)).code == 11
    assert served.cancelled == 1


@pytest.fixture
async def channel(start):
    listener = await start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as made:
        yield made


async def test_grpcs_own_client_talks_and_listens_at_once(channel):
    sent = [b"%d" % n * (n * 37 % 3000) for n in range(400)]
    call = channel.stream_stream("/t.T/Chat")(iter(sent), timeout=30)
    assert [each async for each in call] == sent
    assert await call.code() is grpc.StatusCode.OK


async def test_grpcs_own_client_sends_a_stream_and_gets_one_answer(channel):
    assert await channel.stream_unary("/t.T/Count")(iter([b"x" * 100_000] * 70), timeout=30) == b"70"


async def test_grpcs_own_client_gets_a_stream_for_one_message(channel):
    call = channel.unary_stream("/t.T/Repeat")(b"z" * 200_000, timeout=30)
    assert [len(each) async for each in call] == [200_000] * 20


async def test_grpcs_own_client_cancels_a_stream(channel, served):
    call = channel.stream_stream("/t.T/Chat")(timeout=30)
    await call.write(b"hello")
    assert await call.read() == b"hello"
    call.cancel()
    await until(lambda: served.cancelled)


async def test_grpcs_own_client_reads_a_status_and_details_after_messages(channel):
    call = channel.stream_stream("/t.T/Fails")(iter([b"a"]), timeout=10)
    assert await call.read() == b"a"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(refused.value.trailing_metadata())["reason"] == "why"


def chat(call: StreamCall) -> None:
    call.listen(call.send, call.finish)


def slow(call: StreamCall) -> None:
    """Takes one message, then holds the client back until what it sent has left."""

    def answer(body: bytes) -> None:
        call.send(body)
        call.hold()
        if not call.backlog:
            call.go_on()

    call.listen(answer, call.finish, room=call.go_on)


def talk(pieces: list[bytes], limits: Http2Limits) -> tuple[bytes, Edge]:
    loop = asyncio.new_event_loop()
    try:
        edge = Edge(EdgeSettings(), loop)
        methods = Methods({}, {b"/t.T/Chat": chat, b"/t.T/Slow": slow})
        connection = Http2Connection(Shared(edge, limits, Turns(loop)), methods)
        sink = Sink()
        connection.connection_made(sink)
        for piece in pieces:
            connection.data_received(piece)
        loop.run_until_complete(asyncio.sleep(0))
        connection.connection_lost(None)
        edge.stop()
        intake = connection.intake
        assert (intake.arriving, intake.calls, intake.streams) == ({}, {}, {})
    finally:
        loop.close()
    return sink.data, edge


BODIES = st.lists(st.binary(max_size=30).map(message), max_size=4).map(b"".join)
STREAM_FRAMES = st.one_of(
    st.builds(lambda sid, path, flags: head(path, sid=sid, flags=flags), st.sampled_from([1, 3, 5]),
              st.sampled_from([b"/t.T/Chat", b"/t.T/Slow"]), st.sampled_from([4, 4, 5])),
    st.builds(lambda sid, flags, body: frame(DATA, flags, sid, body), st.sampled_from([1, 3, 5]),
              st.sampled_from([0, 0, 0, 1]), BODIES | st.binary(max_size=12)),
    st.builds(lambda sid, more: frame(WINDOW, 0, sid, word(more)), st.sampled_from([0, 1, 3]), st.integers(0, 40)),
    st.builds(lambda sid: frame(RST, 0, sid, word(8)), st.sampled_from([1, 3, 5])),
    st.builds(lambda size: frame(SETTINGS, 0, 0, setting(4, size)), st.integers(0, 50)),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(STREAM_FRAMES | FRAMES, max_size=14).map(b"".join))
def test_no_frames_on_streams_make_it_raise_or_keep_memory(data):
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("modelyard.foundation.http2")
    logger.addHandler(handler)
    try:
        _, edge = talk([BEGIN + data], Http2Limits(stream_window_bytes=65535))
    finally:
        logger.removeHandler(handler)
    assert records == []
    assert edge.buffered == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=12), st.lists(st.integers(1, 40), max_size=40), st.booleans())
def test_however_messages_are_cut_they_come_back_whole_and_in_order(bodies, cuts, slowly):
    whole = b"".join(map(message, bodies))
    frames, at = [], 0
    for cut in cuts:
        frames.append(frame(DATA, 0, 1, whole[at : at + cut]))
        at += cut
    frames.append(frame(DATA, END_STREAM, 1, whole[at:]))
    said, _ = talk([BEGIN + head(b"/t.T/Slow" if slowly else b"/t.T/Chat"), *frames], Http2Limits())
    assert data_of(said) == whole


def data_of(said: bytes) -> bytes:
    """The DATA bytes among the frames in `said`."""
    at, found = 0, b""
    while at < len(said):
        size = int.from_bytes(said[at : at + 3], "big")
        if said[at + 3] == DATA:
            found += said[at + 9 : at + 9 + size]
        at += 9 + size
    return found
