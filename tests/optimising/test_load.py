"""The load: what arrives does not wait for what is answered, and every request is accounted for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np

from modelyard.processes.jobs.optimising.load import Door, Round

REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
Answer = Callable[[int], Awaitable[bytes]]
"""What the server says to the request of this number; nothing: it hangs up."""


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[str]:
    seen = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        try:
            while await reader.readexactly(len(REQUEST)):
                seen += 1
                said = await answer(seen)
                if not said:
                    return
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def driven(answer: Answer, *, rate: float, seconds: float, warm: bool = True) -> Round:
    async with served(answer) as url:
        door = Door(url)
        try:
            if warm:
                await door.warm([REQUEST])
            return await door.drive([REQUEST], rate=rate, seconds=seconds, chance=np.random.default_rng(0))
        finally:
            door.close()


async def at_once(number: int) -> bytes:
    return OK


async def test_every_request_of_a_round_is_answered_and_timed():
    found = await driven(at_once, rate=200, seconds=1)
    assert (len(found.latencies_ms), found.failed) == (200, 0)
    assert found.quantile(0.5) <= found.quantile(0.99) <= max(found.latencies_ms)


async def test_a_stall_is_charged_with_all_that_came_meanwhile():
    """A closed loop would see one slow request; arrivals go on, so about a third of them wait."""
    stalled = asyncio.Event()

    async def answer(number: int) -> bytes:
        if number > 60 and not stalled.is_set():
            await asyncio.sleep(0.5)
            stalled.set()
        return OK

    found = await driven(answer, rate=200, seconds=1)
    slow = sum(each > 100 for each in found.latencies_ms)
    assert slow > 20, "what arrived while nothing was answered has to show it"


async def test_a_refusal_is_a_failure_with_the_words_of_the_server():
    async def answer(number: int) -> bytes:
        refusal = b'HTTP/1.1 429 Too Many\r\ncontent-length: 12\r\n\r\n{"error":"x"'
        return refusal if number % 4 == 0 else OK

    found = await driven(answer, rate=100, seconds=1)
    assert found.failed + len(found.latencies_ms) == 100
    assert found.failed == 25
    assert found.reason == '429: {"error":"x"'


async def test_a_lost_connection_fails_its_request_alone():
    async def answer(number: int) -> bytes:
        return b"" if number == 50 else OK

    found = await driven(answer, rate=100, seconds=1)
    assert (found.failed, len(found.latencies_ms)) == (1, 99)
    assert found.reason == "the server closed the connection"


async def test_an_answer_that_is_no_http_is_a_failure():
    async def answer(number: int) -> bytes:
        return b"what?\r\n\r\n" if number == 5 else OK

    found = await driven(answer, rate=50, seconds=1, warm=False)
    assert (found.failed, len(found.latencies_ms)) == (1, 49)


async def test_a_server_that_is_not_there_fails_every_request():
    door = Door("http://127.0.0.1:1")
    found = await door.drive([REQUEST], rate=20, seconds=0.5, chance=np.random.default_rng(0))
    door.close()
    assert (found.failed, found.latencies_ms) == (10, [])
    assert "cannot be reached" in found.reason


async def test_a_line_that_the_server_closes_after_its_answer_is_not_used_again():
    async def answer(number: int) -> bytes:
        return OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n")

    found = await driven(answer, rate=60, seconds=1)
    assert (found.failed, len(found.latencies_ms)) == (0, 60)
