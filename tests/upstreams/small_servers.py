"""Small real servers to relay to, on the standard library's HTTP server: none of our own code is at both ends."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["Hel", "lo ", "wor", "ld"]
USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


class Upstream:
    """What a test sees of a small server: `asked` are (path, headers, body), `mode` how it behaves."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.port = port
        self.scheme = "https" if tls else "http"
        self.mode = "well"
        self.key = ""
        self.asked: list[tuple[str, Any, Any]] = []
        self.connections = 0
        self.gone = threading.Event()
        self.go_on = threading.Event()
        self.metadata = True

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: Upstream

    def setup(self) -> None:
        super().setup()
        self.upstream.connections += 1

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self.upstream.asked.append((self.path, self.headers, None))
        if not self._may():
            return
        if self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": "small", "object": "model"}]})
        elif self.path == "/v2":
            self._json({"name": "small", "version": "1", "extensions": []})
        elif self.path == "/v2/health/live":
            self._json({"live": True})
        elif self.path == "/v2/models/double":
            tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
            outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
            described = {"inputs": tensors, "outputs": outputs} if self.upstream.metadata else {}
            self._json({"name": "double", "versions": ["1"], "platform": "small_test", **described})
        else:
            self._json({"error": "nothing here"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.upstream.asked.append((self.path, self.headers, body))
        if not self._may():
            return
        mode = self.upstream.mode
        if mode in ("garbage", "cut", "silent"):
            self._misbehave(mode)
        elif mode == "busy":
            self._json({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"})
        elif mode == "broken":
            self._json({"error": {"message": "oops"}}, 500)
        elif mode == "moved":
            self._json({}, 302, {"Location": "http://169.254.169.254/latest"})
        elif mode == "refuses":
            self._json({"error": {"message": "context too long", "code": "context_length_exceeded"}}, 400)
        elif self.path.startswith("/v2/"):
            self._infer(body)
        elif body.get("stream"):
            self._stream(body)
        elif self.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            self._json({"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 3}})
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
            self._json({"id": "c1", "object": "chat.completion", "model": body["model"], "choices": [choice],
                        "usage": USAGE})  # fmt: skip

    def _misbehave(self, mode: str) -> None:
        self.close_connection = True
        if mode == "garbage":
            self.wfile.write(b"what is this?\r\n\r\n")
        elif mode == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"half":')
        else:
            self.upstream.go_on.wait(30)

    def _infer(self, body: Any) -> None:
        tensor = body["inputs"][0]
        if self.upstream.mode == "wrong shape":
            self._json({"outputs": [{**tensor, "name": "y", "shape": [9, 9]}]})
            return
        values = [2 * value for value in tensor["data"]]
        self._json({"model_name": "double", "outputs": [{**tensor, "name": "y", "data": values}]})

    def _stream(self, body: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for word in WORDS:
                self._event({"choices": [{"index": 0, "delta": {"content": word}}], "usage": None})
                if self.upstream.mode == "step by step":
                    self.upstream.go_on.wait(30)
                    self.upstream.go_on.clear()
                if self.upstream.mode == "dies":
                    self.close_connection = True
                    return
                if self.upstream.mode == "endless":
                    self._endless()
            if (body.get("stream_options") or {}).get("include_usage"):
                self._event({"choices": [], "usage": USAGE})
            self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.upstream.gone.set()
            self.close_connection = True

    def _endless(self) -> None:
        while True:
            self._event({"choices": [{"index": 0, "delta": {"content": "on and on "}}]})
            time.sleep(0.01)

    def _event(self, document: Any) -> None:
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _may(self) -> bool:
        if self.upstream.key and self.headers.get("Authorization") != f"Bearer {self.upstream.key}":
            self._json({"error": {"message": "who are you?"}}, 401)
            return False
        return True

    def _json(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes is what some tests are about."""


@contextmanager
def small_upstream(*, tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Upstream]:
    """A running small server."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    upstream = Upstream(server.server_address[1], tls=tls is not None)
    handler.upstream = upstream
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        upstream.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
