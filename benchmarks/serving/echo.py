"""The floor under every figure: `asyncio.Protocol`, httptools and the same loop, with a constant answer.

    python -m benchmarks.serving.echo PORT

No check, no limit, no deadline: what HTTP costs in this language.
"""

import asyncio
import sys
from typing import cast

import httptools

from modelyard.foundation.http import new_event_loop

# ruff: noqa: D102  (the methods are asyncio's and httptools')

BODY = (
    b'{"model_name":"s","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,3],'
    b'"data":[0.25,0.5,0.25]}]}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Echo(asyncio.Protocol):
    """Answers each request that was read to its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)


async def main(port: int) -> None:
    """Listen until the end."""
    await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
