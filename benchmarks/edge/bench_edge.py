"""How much of a bare event loop's speed is left behind the edge, with every limit on.

Paired and interleaved: in each round the bare `asyncio.Protocol` + httptools + uvloop echo and the edge are measured
one right after the other, in changing order, with wrk (one thread, 64 connections). The figure is the median of the
rounds' ratios; absolute figures drift with the machine and say little.

    python benchmarks/edge/bench_edge.py --rounds 7 --seconds 3

`--heads same` sends one head over and over, as most clients do; `--heads varied` gives each request a header of its
own, so that every head is parsed anew; `--handler later` answers in a later turn of the loop, as a batch does.
"""

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from modelyard.foundation.http import EdgeSettings, Reply, Request, new_event_loop, serve

ANSWER = b'{"outputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[0.25,0.75]}]}'
BODY = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 00:00:00 GMT\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nx-request-id: 0123456789abcdef0123\r\n\r\n" % len(ANSWER)
)


# ruff: noqa: D102  (the methods are asyncio's, httptools' and the handler port's)


class BareEcho(asyncio.Protocol):
    """What there is to lose: a parser of C, no check, no limit, no deadline."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        import httptools

        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        self.body = body

    def on_message_complete(self) -> None:
        self.transport.write(HEAD + ANSWER)  # type: ignore[attr-defined]


class AtOnce:
    """Answers in the call."""

    def handle(self, request: Request, reply: Reply) -> None:
        reply.send(200, ANSWER)


class Later:
    """Gathers what one turn of the loop brings and answers it in the next."""

    def __init__(self) -> None:
        self.waiting: list[Reply] = []

    def handle(self, request: Request, reply: Reply) -> None:
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self.waiting.append(reply)

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for reply in waiting:
            reply.send(200, ANSWER)


def child(kind: str, port: int) -> None:
    async def main() -> None:
        if kind == "bare":
            await asyncio.get_running_loop().create_server(BareEcho, "127.0.0.1", port, backlog=4096)
        else:
            handler = AtOnce() if kind == "edge" else Later()
            await serve(handler, address=("127.0.0.1", port), settings=EdgeSettings())
        await asyncio.sleep(3600)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


@contextlib.contextmanager
def server(kind: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "--child", kind, "--port", str(port)])
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(kind)
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def script(*, varied: bool) -> str:
    lines = [
        'wrk.method = "POST"',
        f"wrk.body = '{BODY}'",
        'wrk.headers["Content-Type"] = "application/json"',
        'wrk.headers["Authorization"] = "Bearer my_live_0123456789abcdef0123456789abcdef"',
    ]
    if varied:
        lines += [
            "local n = 0",
            "request = function()",
            "  n = n + 1",
            '  wrk.headers["traceparent"] = string.format("00-%032x-%016x-01", n, n)',
            '  return wrk.format("POST", "/v2/models/m1/infer")',
            "end",
        ]
    return "\n".join(lines)


def load(port: int, seconds: int, lua: Path) -> float:
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}/v2/models/m1/infer"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    match = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    assert match is not None
    return float(match[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--heads", choices=("same", "varied"), default="same")
    parser.add_argument("--handler", choices=("now", "later"), default="now")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.port)
        return
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    kind = "edge" if given.handler == "now" else "later"
    ratios = []
    with tempfile.TemporaryDirectory() as folder, server("bare") as bare, server(kind) as edge:
        lua = Path(folder) / "load.lua"
        lua.write_text(script(varied=given.heads == "varied"))
        for port in (bare, edge):
            load(port, 1, lua)
        for number in range(given.rounds):
            order = (bare, edge) if number % 2 == 0 else (edge, bare)
            rates = {port: load(port, given.seconds, lua) for port in order}
            ratios.append(rates[edge] / rates[bare])
            print(f"bare {rates[bare]:9.0f}/s   edge {rates[edge]:9.0f}/s   ratio {ratios[-1]:.3f}", flush=True)
    middle = statistics.median(ratios)
    print(f"heads {given.heads}, answers {given.handler}, {os.cpu_count()} cores: median ratio {middle:.3f}")


if __name__ == "__main__":
    main()
