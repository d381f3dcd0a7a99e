"""Neighbours of the corpus' cases: each class of malformed request, beyond the samples."""

import gzip
import socket
import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelyard.foundation.http import EdgeLimits, HostPolicy, RouteRule, TrustedProxies
from modelyard.foundation.http.head import Head, HeadRules, read_head
from modelyard.foundation.http.recall import HeadMemory, recall_head
from modelyard.foundation.http.refusal import Refused

ZIPPED = gzip.compress(b"hello", mtime=0)
HOST = b"Host: 127.0.0.1\r\n"


def post(
    *lines: bytes, body: bytes = b"", path: bytes = b"/echo", version: bytes = b"1.1", host: bytes = HOST
) -> bytes:
    head = b"POST %b HTTP/%b\r\n%b" % (path, version, host) + b"".join(line + b"\r\n" for line in lines)
    return head + b"\r\n" + body


def chunked(body: bytes, te: bytes = b"chunked") -> bytes:
    return post(b"Transfer-Encoding: " + te, body=body)


GOOD = {
    "length": (post(b"Content-Length: 5", body=b"hello"), b"hello"),
    "no body": (post(), b""),
    "chunks": (chunked(b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), b"hello"),
    "upper hex": (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "extension": (chunked(b'3;a=b;c="d"\r\nhel\r\n0\r\n\r\n'), b"hel"),
    "trailers": (chunked(b"3\r\nhel\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n"), b"hel"),
    "coding in capitals": (chunked(b"0\r\n\r\n", te=b"Chunked"), b""),
    "empty line first": (b"\r\n" + post(b"Content-Length: 1", body=b"x"), b"x"),
    "gzip": (post(b"Content-Encoding: gzip", b"Content-Length: 25", body=ZIPPED), b"hello"),
    "absolute form": (post(path=b"http://127.0.0.1/echo"), b""),
    "no space after the colon": (post(b"Content-Length:2", body=b"ok"), b"ok"),
    "http/1.0 without host": (post(b"Content-Length: 2", version=b"1.0", host=b"", body=b"ok"), b"ok"),
    "repeated list header": (post(b"Accept: a/b", b"Accept: c/d"), b""),
}

BAD = {
    "length with plus": (400, post(b"Content-Length: +2", body=b"{}")),
    "length with minus": (400, post(b"Content-Length: -2", body=b"{}")),
    "length in hex": (400, post(b"Content-Length: 0x2", body=b"{}")),
    "length with underscore": (400, post(b"Content-Length: 1_0", body=b"0123456789")),
    "length with blank inside": (400, post(b"Content-Length: 1 0", body=b"0123456789")),
    "length empty": (400, post(b"Content-Length:", body=b"{}")),
    "length in other digits": (400, post("Content-Length: ²".encode("latin-1"), body=b"{}")),
    "length twice the same": (400, post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}")),
    "length too large for the route": (413, post(b"Content-Length: 70000000")),
    "length beside chunks": (400, post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "coding twice": (400, post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "coding chunked, chunked": (400, chunked(b"0\r\n\r\n", te=b"chunked, chunked")),
    "coding identity": (400, chunked(b"0\r\n\r\n", te=b"identity")),
    "coding quoted": (400, chunked(b"0\r\n\r\n", te=b'"chunked"')),
    "coding with parameter": (400, chunked(b"0\r\n\r\n", te=b"chunked;q=1")),
    "coding empty": (400, chunked(b"0\r\n\r\n", te=b"")),
    "coding after no-break space": (400, chunked(b"0\r\n\r\n", te=b"\xa0chunked")),
    "coding with a space before the colon": (400, post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    "coding with a tab before the colon": (400, post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n")),
    "folded line": (400, post(b"X-A: b\r\n c")),
    "folded first line": (400, post(b" X-A: b")),
    "header without colon": (400, post(b"X-A")),
    "header without name": (400, post(b": a")),
    "nul in a value": (400, post(b"X-A: b\x00c")),
    "bare CR in a value": (400, post(b"X-A: b\rc")),
    "bare LF after one line": (400, post(b"X-A: b\nX-B: c")),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\n\n"),
    "name with a slash": (400, post(b"X/A: b")),
    "name outside ascii": (400, post("Ä: b".encode())),
    "two empty lines first": (400, b"\r\n\r\n" + post()),
    "chunk size with sign": (400, chunked(b"+3\r\nhel\r\n0\r\n\r\n")),
    "chunk size with 0x": (400, chunked(b"0x3\r\nhel\r\n0\r\n\r\n")),
    "chunk size with underscore": (400, chunked(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n")),
    "chunk size with a blank first": (400, chunked(b" 3\r\nhel\r\n0\r\n\r\n")),
    "chunk size empty": (400, chunked(b"\r\nhel\r\n0\r\n\r\n")),
    "chunk size of 17 digits": (400, chunked(b"00000000000000003\r\nhel\r\n0\r\n\r\n")),
    "chunk size too large": (413, chunked(b"fffffffffffffff\r\n")),
    "chunk line with bare LF": (400, chunked(b"3\nhel\r\n0\r\n\r\n")),
    "chunk extension with bare LF": (400, chunked(b"3;a\nb\r\nhel\r\n0\r\n\r\n")),
    "chunk extension with bare CR": (400, chunked(b"3;a\rb\r\nhel\r\n0\r\n\r\n")),
    "chunk longer than said": (400, chunked(b"3\r\nhello\r\n0\r\n\r\n")),
    "chunk data ended by LF": (400, chunked(b"3\r\nhel\n0\r\n\r\n")),
    "trailer with bare LF": (400, chunked(b"0\r\nX-A: b\n\r\n\r\n")),
    "trailer folded": (400, chunked(b"0\r\nX-A: b\r\n c\r\n\r\n")),
    "a million tiny chunks": (400, chunked(b"1\r\na\r\n" * 40_000)),
    "target without slash": (400, post(path=b"echo")),
    "target with a fragment": (400, post(path=b"/echo#x")),
    "target with a bare percent": (400, post(path=b"/echo%zz")),
    "target with an encoded nul": (400, post(path=b"/echo%00")),
    "target with a backslash": (400, post(path=b"/\\echo")),
    "target with two blanks": (400, b"GET  /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "target with a tab": (400, b"GET\t/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "version 2": (505, b"GET / HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n"),
    "http/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "version 1.2": (505, b"GET / HTTP/1.2\r\nHost: 127.0.0.1\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "version in small letters": (400, b"GET / http/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "method in small letters": (501, b"get / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "connect": (405, b"CONNECT a:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "trace": (405, b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    "host empty": (400, post(host=b"Host:\r\n")),
    "host with credentials": (400, post(host=b"Host: a@127.0.0.1\r\n")),
    "host with a path": (400, post(host=b"Host: 127.0.0.1/x\r\n")),
    "host as a list": (400, post(host=b"Host: 127.0.0.1, evil\r\n")),
    "host with another port": (421, post(host=b"Host: 127.0.0.1:1\r\n")),
    "host with port 0": (400, post(host=b"Host: 127.0.0.1:0\r\n")),
    "host with a dot at the end": (421, post(host=b"Host: localhost.\r\n")),
    "host that ends like ours": (421, post(host=b"Host: evil-localhost\r\n")),
    "host twice the same": (400, post(host=HOST + HOST)),
    "absolute form with credentials": (400, post(path=b"http://127.0.0.1@evil/echo")),
    "deflate": (415, post(b"Content-Encoding: deflate", b"Content-Length: 2", body=zlib.compress(b"")[:2])),
    "brotli": (415, post(b"Content-Encoding: br", b"Content-Length: 1", body=b"x")),
    "gzip cut short": (400, post(b"Content-Encoding: gzip", b"Content-Length: 20", body=ZIPPED[:20])),
    "gzip with a tail": (400, post(b"Content-Encoding: gzip", b"Content-Length: 26", body=ZIPPED + b"x")),
    "no gzip at all": (400, post(b"Content-Encoding: gzip", b"Content-Length: 5", body=b"hello")),
    "other expectation": (417, post(b"Expect: 200-ok", b"Content-Length: 0")),
    "authorization twice": (400, post(b"Authorization: a", b"Authorization: b")),
    "101 headers": (431, post(*[b"X-%d: a" % number for number in range(100)])),
    "an address over the limit": (414, post(path=b"/" + b"a" * 8192)),
    "an address over the limit without end": (414, b"GET /" + b"a" * 9000),
    "binary": (400, bytes(range(128, 256))),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_request_is_answered(name, edge):
    request, body = GOOD[name]
    talk = edge.talk(request, linger=0.02)
    assert talk.statuses == [200]
    assert talk.raw.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_request_is_refused_and_the_connection_closed(name, edge):
    status, request = BAD[name]
    follower = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    talk = edge.talk(request + follower, answers=2)
    assert talk.statuses == [status]
    assert talk.closed
    assert b"connection: close" in talk.raw
    assert b'"request_id":"' in talk.raw
    assert edge.handler.seen == []


def test_a_gzip_bomb_is_refused(edge):
    bomb = gzip.compress(bytes(60 * 1024 * 1024))
    request = post(b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb), body=bomb)
    assert edge.talk(request, answers=2).statuses == [413]


def test_every_byte_by_itself_gives_the_same_answer(edge):
    request, body = GOOD["trailers"]
    talk = edge.talk(*[request[at : at + 1] for at in range(len(request))])
    assert talk.statuses == [200]
    assert talk.raw.endswith(body)


ALL = [(name, 200, request) for name, (request, _) in GOOD.items()] + [
    (name, status, request) for name, (status, request) in BAD.items() if len(request) < 2000
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_the_bytes_are_split_the_answer_is_the_same(data, shared_edge):
    name, status, request = data.draw(st.sampled_from(ALL))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(request) - 1, 1)), max_size=6)))
    pieces = [request[a:b] for a, b in zip([0, *cuts], [*cuts, len(request)], strict=True) if a != b]
    talk = shared_edge.talk(*pieces, linger=0.01)
    assert talk.statuses == [status], name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_request_with_a_byte_changed_is_answered_and_never_with_a_500(data, shared_edge):
    request = bytearray(data.draw(st.sampled_from([request for request, _ in GOOD.values()])))
    for _ in range(data.draw(st.integers(1, 3))):
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    talk = shared_edge.talk(bytes(request), until=3)
    assert 1 <= len(talk.statuses) <= 2  # a changed length may leave a tail, which is refused as a request of its own
    assert all(status < 500 or status in {501, 505} for status in talk.statuses)
    assert talk.statuses[1:] in ([], [400], [501], [505])


@pytest.fixture
def shared_edge(start):
    return start(Stand(), limits=EdgeLimits(receipt_deadline_s=0.5, linger_s=0.2))


class Stand:
    def handle(self, request, reply):
        reply.send(200, request.body)


def outcome(read, *arguments):
    try:
        head = read(*arguments)
    except Refused as refused:
        return refused.status, refused.error.code
    return [getattr(head, name) for name in Head.__slots__]


RULES = HeadRules(
    limits=EdgeLimits(max_headers=8),
    hosts=HostPolicy().at(8000),
    proxies=TrustedProxies(),
    routes=lambda method, path: RouteRule(max_body_bytes=3) if path == "/echo" and method == "PUT" else None,
    default_rule=RouteRule(max_body_bytes=1000),
    peer="127.0.0.1",
    scheme="http",
)
LINES = st.sampled_from(
    [
        HOST, b"Host: localhost:8000\r\n", b"Host: evil\r\n", b"Content-Length: 3\r\n", b"Content-Length: 4\r\n",
        b"Content-Length: 0003\r\n", b"content-length: +3\r\n", b"Content-Length: 5000\r\n", b"Accept: a\r\n",
        b"Accept: b\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: keep-alive\r\n", b"Connection: close\r\n",
        b"X_Y: z\r\n", b"X-Internal-A: b\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"X-Request-Id: ok-1\r\n",
        b"X-Request-Id: <no>\r\n", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b" folded\r\n",
        b"A : b\r\n", b"A: b\n", b"A: \x00\r\n", b"traceparent: 00-1-1-01\r\n", b"Authorization: k\r\n",
    ]
)  # fmt: skip
FIRST = st.sampled_from(
    [
        b"%b %b HTTP/1.%d\r\n" % (method, path, minor)
        for method in (b"GET", b"PUT", b"HEAD", b"NOPE")
        for path in (b"/echo", b"/echo?a=b", b"http://localhost:8000/echo", b"x", b"/a b")
        for minor in (0, 1)
    ]
)


@example([(b"GET /echo HTTP/1.1\r\n", []), (b"GET /echo HTTP/1.1\r\n", [b"A: b\n"])])
@given(st.lists(st.tuples(FIRST, st.lists(LINES, max_size=5)), min_size=1, max_size=12))
def test_what_is_recalled_is_what_the_strict_reader_says(heads):
    memory = HeadMemory()
    for first, lines in heads:
        for follow in (lines, [HOST, *lines]):
            raw = first + b"".join(follow) + b"\r\n"
            for _ in range(3):  # learned, put together from what was learned, kept whole
                assert outcome(recall_head, raw, RULES, memory) == outcome(read_head, raw, RULES)


def test_a_head_that_was_kept_serves_every_address():
    memory = HeadMemory()
    raw = b"PUT /echo HTTP/1.1\r\n%bContent-Length: 3\r\n\r\n" % HOST
    heads = [recall_head(raw, replace(RULES, peer=peer), memory) for peer in ("10.0.0.1", "10.0.0.2") * 3]
    assert heads[5] is heads[2], "kept"


def test_a_head_that_was_kept_does_not_say_who_sent_it(start):
    edge = start(Mirror())
    for client in ("127.0.0.1", "127.0.0.2") * 3:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=5, source_address=(client, 0)) as link:
            link.sendall(post())
            assert f"{client} http ".encode() in link.recv(4000)


class Mirror:
    """Says who is asking, as the edge sees it."""

    def handle(self, request, reply):
        reply.send(200, f"{request.peer} {request.scheme} {request.headers}".encode())


FORWARDED = (
    b"X-Forwarded-For: 6.6.6.6, 9.9.9.9, 127.0.0.1", b"X-Forwarded-Proto: https", b"X_Internal_Principal: admin",
    b"X-Internal-Principal: admin", b"X-Real-IP: 1.1.1.1",
)  # fmt: skip


def test_forwarding_headers_of_a_stranger_are_dropped(start):
    said = start(Mirror()).talk(post(*FORWARDED)).raw
    assert b"127.0.0.1 http " in said
    for name in (b"x-forwarded", b"internal", b"x-real-ip", b"admin"):
        assert name not in said


def test_a_trusted_proxy_names_the_client(start):
    said = start(Mirror(), proxies=TrustedProxies.of(["127.0.0.0/8"])).talk(post(*FORWARDED)).raw
    assert b"9.9.9.9 https " in said
    assert b"admin" not in said


def test_further_hosts_are_served_when_they_are_named(start):
    edge = start(Mirror(), hosts=HostPolicy.of(["models.example.org", "proxy.example.org:8443"]))
    for host, status in (
        ("models.example.org", 200),
        (f"Models.Example.org:{edge.port}", 200),
        ("models.example.org:8443", 421),
        ("proxy.example.org:8443", 200),
        ("evil.org", 421),
    ):
        assert edge.talk(post(host=f"Host: {host}\r\n".encode())).statuses == [status], host
