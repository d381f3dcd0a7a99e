"""Order, deadlines, slow readers, drain, keep-alive: how a connection behaves over time."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import time

import pytest
import trustme

from modelyard.foundation.http import EdgeLimits, EdgeSettings, TlsFiles, header_lines, serve

SHORT = EdgeLimits(receipt_deadline_s=0.5, idle_s=0.8, write_deadline_s=0.6, linger_s=0.2, half_close_grace_s=0.3)


def get(path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", *lines, "", ""]).encode()


def until(claim, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def read_all(client: socket.socket, seconds: float = 5.0) -> bytes:
    client.settimeout(seconds)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            data += part
    return data


class Echo:
    def handle(self, request, reply):
        reply.send(200, request.path.encode())


class Backwards:
    """Answers the requests it has gathered in the wrong order, some whole and some in parts."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting = []
        self.lost = 0

    def handle(self, request, reply):
        reply.on_disconnect(self._lose)
        self.waiting.append((request, reply))
        if len(self.waiting) == self.count:
            waiting, self.waiting = self.waiting, []
            for number, (each, answer) in enumerate(reversed(waiting)):
                if number % 2:
                    answer.send(200, each.path.encode())
                else:
                    answer.start(200, length=len(each.path))
                    answer.write(each.path.encode())
                    answer.finish()

    def _lose(self):
        self.lost += 1


class Never:
    def __init__(self):
        self.lost = threading.Event()
        self.asked = threading.Event()

    def handle(self, request, reply):
        self.asked.set()
        reply.on_disconnect(self.lost.set)


ZEROS = bytes(16 * 1024 * 1024)


class Large:
    def handle(self, request, reply):
        reply.send(200, ZEROS)


def test_pipelined_requests_are_answered_in_order(start):
    edge = start(Backwards(40))
    talk = edge.talk(b"".join(get(f"/{number:02}") for number in range(40)), answers=40)
    assert talk.statuses == [200] * 40
    assert re.findall(rb"\r\n\r\n/(\d\d)", talk.raw) == [b"%02d" % number for number in range(40)]


def test_more_than_the_pipeline_holds_waits_and_is_answered(start):
    edge = start(Backwards(4), limits=EdgeLimits(max_pipelined=4))
    talk = edge.talk(b"".join(get(f"/{number:02}") for number in range(20)), answers=20)
    assert re.findall(rb"\r\n\r\n/(\d\d)", talk.raw) == [b"%02d" % number for number in range(20)]


def test_head_and_204_have_no_body_and_the_next_answer_follows(edge):
    talk = edge.talk(get("/v2/health/live", method="HEAD") + get("/v2/health/live"), answers=9, linger=0.1, until=0.5)
    assert talk.statuses == [200, 200]
    assert talk.raw.count(b'{"live":true}') == 1
    assert talk.raw.count(b"content-length: 13") == 2


def test_a_client_that_says_close_is_answered_and_closed(edge):
    talk = edge.talk(get("/v2/health/live", "Connection: close") + get("/smuggled"), answers=2)
    assert talk.statuses == [200]
    assert talk.closed
    assert b"connection: close" in talk.raw


def test_http_1_0_is_closed_unless_it_asks_to_be_kept(edge):
    assert edge.talk(get("/v2/health/live", version="1.0"), answers=2).closed
    kept = edge.talk(get("/v2/health/live", "Connection: keep-alive", version="1.0") * 2, answers=2)
    assert kept.statuses == [200, 200]
    assert b"connection: keep-alive" in kept.raw


def test_a_connection_is_closed_after_its_last_allowed_request(start):
    talk = start(Echo(), limits=EdgeLimits(max_requests=3)).talk(get() * 5, answers=5)
    assert talk.statuses == [200] * 3
    assert talk.closed


def test_an_upgrade_is_never_made(edge):
    talk = edge.talk(
        get("/v2/health/live", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
    )
    assert talk.statuses == [200]
    assert b"upgrade" not in talk.raw.lower()


def test_a_client_that_expects_a_go_ahead_gets_it(edge):
    with edge.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert client.recv(4000).endswith(b"hello")


def test_every_answer_has_an_id_and_a_sound_one_of_the_caller_is_kept(edge):
    own = edge.talk(get("/v2/health/live") * 2, answers=2)
    ids = re.findall(rb"x-request-id: ([0-9a-f]{20})\r\n", own.raw)
    assert len(set(ids)) == 2
    assert b"x-request-id: abc-1\r\n" in edge.talk(get("/v2/health/live", "X-Request-Id: abc-1")).raw
    assert b"evil" not in edge.talk(get("/v2/health/live", 'X-Request-Id: evil"{}')).raw


def test_a_connection_that_sends_nothing_is_closed_without_a_word(start):
    talk = start(Echo(), limits=SHORT).talk(until=3)
    assert talk.closed
    assert talk.raw == b""
    assert talk.seconds < 1.5


@pytest.mark.parametrize("uv", [True, False])
@pytest.mark.parametrize("sent", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_request_that_does_not_arrive_in_time_is_answered_408(sent, uv, start):
    edge = start(Echo(), limits=SHORT, uv=uv)
    talk = edge.talk(sent, answers=2)
    assert talk.statuses == [408]
    assert talk.closed
    assert talk.seconds < 2


def test_the_deadline_is_one_for_the_whole_request_however_steadily_it_drips(start):
    edge = start(Echo(), limits=SHORT)
    with edge.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        started = time.monotonic()
        client.settimeout(0.02)
        answer = b""
        while not answer and time.monotonic() - started < 5:
            client.send(b"a")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(4000)
        assert b" 408 " in answer
        assert time.monotonic() - started < 2


def test_the_rest_of_a_pipelined_request_has_its_own_deadline(start):
    talk = start(Echo(), limits=SHORT).talk(get("/a") + b"GET /b", answers=3)
    assert talk.statuses == [200, 408]


def test_an_idle_connection_is_closed_after_a_while(start):
    talk = start(Echo(), limits=SHORT).talk(get(), answers=2)
    assert talk.statuses == [200]
    assert talk.closed
    assert 0.4 < talk.seconds < 3


def test_a_half_closed_connection_still_gets_its_answer_and_an_incomplete_request_a_400(start):
    edge = start(Echo(), limits=SHORT)
    for sent, status in (
        (get(), b" 200 "),
        (b"GET / HT", b" 400 "),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nabc", b" 400 "),
    ):
        with edge.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert status in read_all(client)


@pytest.mark.parametrize("uv", [True, False])
def test_a_client_that_goes_is_noticed_while_its_request_waits(uv, start):
    handler = Never()
    edge = start(handler, limits=SHORT, uv=uv)
    client = edge.connect()
    client.sendall(get())
    assert handler.asked.wait(5)
    client.close()
    assert handler.lost.wait(3)


@pytest.mark.parametrize("uv", [True, False])
def test_a_client_that_does_not_read_is_dropped(uv, start):
    edge = start(Large(), limits=SHORT, uv=uv)
    with edge.connect() as client:
        client.sendall(get())
        until(lambda: edge.listener.connections == 1)
        until(lambda: edge.listener.connections == 0, 4)


@pytest.mark.parametrize("extra", ["Accept: */*", "Connection: close"])
def test_a_slow_client_that_goes_on_taking_gets_everything(extra, start):
    edge = start(Large(), limits=SHORT)
    with edge.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(get("/", extra))
        taken, began = 0, time.monotonic()
        while taken < len(ZEROS):
            part = client.recv(262_144)
            assert part, "it was dropped"
            taken += len(part)
            time.sleep(max(0.0, began + taken / len(ZEROS) * 1.5 - time.monotonic()))  # its pace, not a wait
        assert time.monotonic() - began > 1.4


def test_a_client_that_asks_without_reading_is_not_read_from_for_ever(start):
    edge = start(Large(), limits=SHORT)
    with edge.connect() as client:
        client.settimeout(1)
        with contextlib.suppress(OSError):
            client.sendall(get() * 20_000)
        until(lambda: edge.listener.connections == 0, 4)
        assert edge.listener.requests < 20


def test_a_handler_that_raises_is_answered_500_and_the_connection_lives(start, caplog):
    class Broken:
        def handle(self, request, reply):
            if request.path == "/bad":
                raise RuntimeError("boom")
            reply.send(200)

    talk = start(Broken()).talk(get("/bad") + get(), answers=2)
    assert talk.statuses == [500, 200]
    assert b"boom" not in talk.raw
    assert "boom" in caplog.text


def test_too_many_connections_are_told_so(start):
    edge = start(Echo(), limits=EdgeLimits(max_connections=1, linger_s=0.1))
    with edge.connect() as first:
        first.sendall(get())
        assert b" 200 " in first.recv(4000)
        assert edge.talk(answers=2).statuses == [503]


def test_bodies_that_would_fill_the_memory_are_refused(start):
    edge = start(Echo(), limits=EdgeLimits(max_buffered_bytes=1000, linger_s=0.1))
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 800\r\n\r\n"
    with edge.connect() as first:
        first.sendall(head)
        until(lambda: edge.listener.connections == 1)
        time.sleep(0.05)
        assert edge.talk(head, answers=2).statuses == [503]
        first.sendall(bytes(800))
        assert b" 200 " in first.recv(4000)
    assert edge.talk(head, bytes(800)).statuses == [200]


def test_headers_that_would_break_the_answer_apart_are_refused():
    for pair in ((b"x-a", b"b\r\nx-c: d"), (b"x a", b"b"), (b"content-length", b"3")):
        with pytest.raises(ValueError, match=r"header|edge"):
            header_lines([pair])


def test_the_access_log_is_called_once_an_answer(start):
    lines = []
    edge = start(Echo(), access_log=lambda *each: lines.append(each))
    edge.talk(get("/a") * 3, answers=3)
    assert [line[:3] for line in lines] == [("GET", "/a", 200)] * 3
    assert all(line[3] >= 0 and line[4] > 100 for line in lines)


def test_a_draining_listener_answers_what_is_open_and_says_close(start):
    handler = Backwards(1)
    edge = start(handler)
    with edge.connect() as idle, edge.connect() as silent:
        idle.sendall(get("/before"))
        assert b"connection: close" not in idle.recv(4000)
        closing = asyncio.run_coroutine_threadsafe(edge.listener.close(5), edge.loop)
        until(lambda: edge.listener._edge.draining)
        idle.sendall(get("/after"))
        answer = read_all(idle)
        assert answer.endswith(b"/after")
        assert b"connection: close" in answer
        assert read_all(silent) == b""
        closing.result(5)
    with pytest.raises(OSError, match="refused"):
        edge.connect()


def test_what_waits_in_the_accept_queue_is_served_before_the_listener_closes():
    async def main() -> bytes:
        listener = await serve(Echo(), address=("127.0.0.1", 0), settings=EdgeSettings(limits=SHORT))
        with socket.create_connection(("127.0.0.1", listener.port)) as client:  # the loop does not turn: unaccepted
            client.sendall(get("/queued"))
            await listener.close(2)
            answer = await asyncio.to_thread(read_all, client)
        async with asyncio.timeout(10):
            while listener._edge.connections:  # noqa: ASYNC110  (the server's side ends when it hears that the client's has)
                await asyncio.sleep(0.01)
        return answer

    assert asyncio.run(main()).endswith(b"/queued")


def test_a_unix_socket_serves_only_its_owner(tmp_path):
    path = tmp_path / "s"

    async def main() -> bytes:
        listener = await serve(Echo(), unix_path=path)
        mode = path.stat().st_mode & 0o777
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(get("/x", "Connection: close").replace(b"127.0.0.1", b"anything"))
        answer = await reader.read()
        writer.close()
        await listener.close(1)
        assert mode == 0o600
        assert not path.exists()
        return answer

    assert asyncio.run(main()).endswith(b"/x")


def write_certificate(folder, authority, name: str) -> TlsFiles:
    made = authority.issue_cert("127.0.0.1", common_name=name)
    for path, pem in ((folder / "key.pem", made.private_key_pem), (folder / "chain.pem", made.cert_chain_pems[0])):
        part = path.with_suffix(".part")
        pem.write_to_path(str(part))
        part.replace(path)
    return TlsFiles(certificate=folder / "chain.pem", key=folder / "key.pem")


def test_over_tls_one_that_says_nothing_does_not_hold_up_the_accept_queue(tmp_path):
    authority = trustme.CA()
    files = write_certificate(tmp_path, authority, "one")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def ask(plain: socket.socket) -> bytes:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(get("/queued", "Connection: close"))
            return read_all(client)

    async def main() -> bytes:
        listener = await serve(Echo(), address=("127.0.0.1", 0), settings=EdgeSettings(limits=SHORT), tls=files)
        address = ("127.0.0.1", listener.port)
        with socket.create_connection(address), socket.create_connection(address) as plain:  # unaccepted, as above
            asking = asyncio.create_task(asyncio.to_thread(ask, plain))
            await listener.close(5)
            return await asking

    assert asyncio.run(main()).endswith(b"/queued")


@pytest.mark.parametrize("uv", [True, False])
def test_a_new_certificate_is_taken_up_without_a_restart(uv, start, tmp_path):
    authority = trustme.CA()
    edge = start(Echo(), tls=write_certificate(tmp_path, authority, "one"), limits=SHORT, uv=uv)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def ask() -> tuple[bytes, int]:
        with edge.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(get("/tls", "Connection: close"))
            answer = b""
            while part := client.recv(4000):
                answer += part
            return answer, int(client.getpeercert()["serialNumber"], 16)

    answer, first = ask()
    assert answer.endswith(b"/tls")
    (tmp_path / "chain.pem").write_text("broken")
    assert not edge.listener.reload_tls()
    assert ask()[1] == first
    write_certificate(tmp_path, authority, "two")
    until(lambda: ask()[1] != first)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(old)
    with pytest.warns(DeprecationWarning, match="TLS"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with edge.connect() as plain, pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(plain, server_hostname="127.0.0.1")
    assert ask()[0].endswith(b"/tls")
