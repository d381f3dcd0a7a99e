"""Real gRPC clients against our HTTP/2: what they send is taken, what they get is what gRPC means."""

import asyncio

import grpc
import grpc.aio
import pytest
import trustme
from wire_client import until

from modelyard.foundation.http import TlsFiles

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
async def channel(start):
    listener = await start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}", options=OPTIONS) as made:
        yield made


async def test_many_calls_at_once_each_get_their_own_answer(channel):
    echo = channel.unary_unary("/t.T/Echo")
    sent = [b"%d" % n * (n % 50) for n in range(600)]
    assert await asyncio.gather(*(echo(each, timeout=20) for each in sent)) == sent


async def test_messages_beyond_every_window_pass_both_ways(channel):
    sent = bytes(range(256)) * 80_000
    assert await channel.unary_unary("/t.T/Echo")(sent, timeout=30) == sent


async def test_a_large_answer_carries_its_trailing_metadata(channel):
    call = channel.unary_unary("/t.T/Big")(b"3000000", timeout=20)
    assert await call == b"z" * 3_000_000
    assert dict(await call.trailing_metadata())["done"] == "yes"


async def test_gzip_requests_are_inflated(channel):
    echo = channel.unary_unary("/t.T/Echo")
    assert await echo(b"a" * 100_000, timeout=10, compression=grpc.Compression.Gzip) == b"a" * 100_000


async def test_metadata_deadline_and_peer_reach_the_handler(channel, served):
    sent = (("x-text", "a b"), ("x-data-bin", b"\x00\xff"), ("x-text", "c"))
    await channel.unary_unary("/t.T/Echo")(b"", timeout=5, metadata=sent)
    call = served.seen[0]
    kept = sorted(each for each in call.metadata if each[0].startswith(b"x-"))
    assert kept == [(b"x-data-bin", b"AP8"), (b"x-text", b"a b"), (b"x-text", b"c")]
    assert call.get(b"x-text") == b"c"
    assert 0 < call.deadline_s <= 5.1
    assert (call.path, call.peer) == (b"/t.T/Echo", "127.0.0.1")


async def test_failures_carry_status_text_and_details(channel):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary("/t.T/Refuse")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details() == "nötig: 100 %\n"
    assert dict(refused.value.trailing_metadata())["reason"] == "why"


async def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary("/t.T/Nope")(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_cancels_the_call_here(channel, served):
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await channel.unary_unary("/t.T/Hold")(b"", timeout=0.2)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: served.cancelled)


async def test_a_cancelled_call_leaves_the_others_alone(channel, served):
    call = channel.unary_unary("/t.T/Hold")(b"")
    waiting = asyncio.ensure_future(channel.unary_unary("/t.T/Hold")(b"", timeout=10))
    async with asyncio.timeout(5):
        await until(lambda: len(served.held) == 2)
        call.cancel()
        await until(lambda: served.cancelled)
    [left] = [each for each in served.held if not each.cancelled]
    left.reply(b"kept")
    assert await waiting == b"kept"


async def test_keepalive_pings_are_answered(start, served):
    listener = await start()
    options = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}", options=options) as channel:
        waiting = asyncio.ensure_future(channel.unary_unary("/t.T/Hold")(b"", timeout=10))
        async with asyncio.timeout(5):
            await until(lambda: served.held)
        asyncio.get_running_loop().call_later(0.4, served.held[0].reply, b"still here")
        assert await waiting == b"still here"


async def test_blocking_clients_in_threads_are_served(start):
    listener = await start()

    def ask(n: int) -> bytes:
        with grpc.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            return channel.unary_unary("/t.T/Echo")(b"%d" % n, timeout=10)

    assert await asyncio.gather(*(asyncio.to_thread(ask, n) for n in range(8))) == [b"%d" % n for n in range(8)]


def issue(place) -> grpc.ChannelCredentials:
    """A certificate of a new authority in the files at `place`; what trusts it, and nothing else."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(place / "key.pem")
    (place / "cert.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes())


async def test_tls_is_spoken_with_alpn_and_takes_up_new_certificates(start, tmp_path):
    trust = issue(tmp_path)
    listener = await start(tls=TlsFiles(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem"))
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{listener.port}"
    async with grpc.aio.secure_channel(address, trust, options=options) as channel:
        assert await channel.unary_unary("/t.T/Echo")(b"s" * 300_000, timeout=10) == b"s" * 300_000
        newer = issue(tmp_path)
        listener.reload_tls()
        async with grpc.aio.secure_channel(address, newer, options=options) as other:
            assert await other.unary_unary("/t.T/Echo")(b"new", timeout=10) == b"new"
        assert await channel.unary_unary("/t.T/Echo")(b"still", timeout=10) == b"still"


async def test_a_drain_loses_no_call(start):
    first = await start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as channel:
        echo = channel.unary_unary("/t.T/Echo")
        await echo(b"warm", timeout=5)
        calls = [echo(b"%d" % n, timeout=10) for n in range(200)]
        answers = asyncio.gather(*calls)
        assert await answers == [b"%d" % n for n in range(200)]
        await first.close(drain_s=5)
