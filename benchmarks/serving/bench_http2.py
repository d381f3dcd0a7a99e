"""Constant unary gRPC echo: our HTTP/2 against grpcio's sync and aio servers, 16 and 64 in flight, over one connection.

    python benchmarks/serving/bench_http2.py [--rounds 3] [--calls 20000]

Needs h2load (package nghttp2-client). Server and driver are pinned to a core each; servers take turns in every round,
so that what else runs on the machine meets all of them. Every answer has to be 2xx. Prints calls a second and ratios.
"""

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PATH = "/bench.Echo/Call"
ANSWER = b"y" * 64
KINDS = ("ours", "grpcio sync", "grpcio aio")


def serve_ours(port: int) -> None:
    from modelyard.foundation.http import run
    from modelyard.foundation.http2 import Methods, serve_grpc

    async def main() -> None:
        methods = Methods({PATH.encode(): lambda call: call.reply(ANSWER)})
        await serve_grpc(methods, sockets=[socket.create_server(("127.0.0.1", port), backlog=1024)])
        await asyncio.Event().wait()

    run(main())


def serve_sync(port: int) -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(8))
    method = grpc.unary_unary_rpc_method_handler(lambda _request, _context: ANSWER)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Call": method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def serve_aio(port: int) -> None:
    import grpc
    import grpc.aio

    async def answer(_request: bytes, _context: object) -> bytes:
        return ANSWER

    async def main() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Call": method}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(main())


def start(kind: str, core: int) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, __file__, "--serve", kind, "--port", str(port), "--core", str(core)])
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.05)
    raise SystemExit(f"{kind} did not start")


def drive(port: int, in_flight: int, calls: int, body: Path, core: int) -> float:
    """Calls a second."""
    done = subprocess.run(
        ["taskset", "-c", str(core), "h2load", "-n", str(calls), "-c", "1", "-m", str(in_flight), "-d", str(body),
         "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{PATH}"],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    if f"{calls} 2xx" not in done:
        raise SystemExit(f"not every call was answered:\n{done}")
    found = re.search(r"([\d.]+) req/s", done)
    assert found is not None
    return float(found[1])


def measure(rounds: int, calls: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    servers = {kind: start(kind, cores[0]) for kind in KINDS}
    try:
        with tempfile.TemporaryDirectory() as folder:
            body = Path(folder) / "message"
            body.write_bytes(b"\0\0\0\0\x40" + b"x" * 64)
            for in_flight in (16, 64):
                found: dict[str, list[float]] = {kind: [] for kind in KINDS}
                for _ in range(rounds):
                    for kind, (_process, port) in servers.items():
                        share = calls * (4 if kind == "ours" else 1)
                        found[kind].append(drive(port, in_flight, share, body, cores[-1]))
                report(in_flight, found)
    finally:
        for process, _port in servers.values():
            process.kill()
            process.wait()


def report(in_flight: int, found: dict[str, list[float]]) -> None:
    for kind, each in found.items():
        pairs = [ours / theirs for ours, theirs in zip(found["ours"], each, strict=True)]
        print(
            f"{in_flight:3} in flight  {kind:12} {statistics.median(each):9,.0f} calls/s"
            f"   ours is {statistics.median(pairs):5.2f} times that ({min(pairs):.2f} to {max(pairs):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--serve", choices=KINDS)
    parser.add_argument("--port", type=int)
    parser.add_argument("--core", type=int)
    asked = parser.parse_args()
    if asked.serve:
        os.sched_setaffinity(0, {asked.core})
        {"ours": serve_ours, "grpcio sync": serve_sync, "grpcio aio": serve_aio}[asked.serve](asked.port)
    elif shutil.which("h2load") is None:
        raise SystemExit("h2load is missing: install nghttp2-client")
    else:
        measure(asked.rounds, asked.calls)


if __name__ == "__main__":
    main()
