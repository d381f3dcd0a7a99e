"""A receiver of webhooks on the standard library's HTTP server; it checks signatures by the published rule itself."""

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What came: (headers, body) of each message. `statuses` are answered in turn, then 204 for ever."""

    port: int = 0
    messages: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    connections: int = 0

    @property
    def url(self) -> str:
        """Where messages are to go."""
        return f"http://127.0.0.1:{self.port}/hook"


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Standard Webhooks: HMAC-SHA-256 of id, timestamp and body under the decoded secret."""
    key = base64.b64decode(secret.strip().removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{right}")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port, gone afterwards."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        """Keeps what comes."""

        def setup(self) -> None:
            """Count the connection."""
            super().setup()
            receiver.connections += 1

        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_POST(self) -> None:
            """Keep it, and answer what was set."""
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.messages.append((dict(self.headers.items()), body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            if receiver.location:
                self.send_header("location", receiver.location)
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
