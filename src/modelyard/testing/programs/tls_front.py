"""TLS in front of a server of loopback that has none, as a proxy does it.

python -m modelyard.testing.programs.tls_front PORT INNER_PORT CHAIN KEY
"""

import asyncio
import ssl
import sys
from contextlib import suppress
from functools import partial
from typing import Final

_PIECE: Final = 65_536


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(_PIECE):
            target.write(piece)
            await target.drain()
    target.close()


async def _serve(inner: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inside, outside = await asyncio.open_connection("127.0.0.1", inner)
    await asyncio.gather(_copy(reader, outside), _copy(inside, writer))


async def _listen(port: int, inner: int, context: ssl.SSLContext) -> None:
    server = await asyncio.start_server(partial(_serve, inner), "127.0.0.1", port, ssl=context)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    port, inner, chain, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    asyncio.run(_listen(int(port), int(inner), context))


if __name__ == "__main__":
    main()
