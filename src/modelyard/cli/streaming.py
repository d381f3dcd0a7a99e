"""Commands for streams: bind a service to a topic in and a topic out, and put in and read what topics hold."""

import asyncio
import hashlib
import json
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import httpx

from modelyard.cli.output import say
from modelyard.cli.platform import platform_command
from modelyard.client import Client
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.foundation.queueing import check_topic
from modelyard.ports.queue import Message, MessageQueue
from modelyard.processes.queues import open_queue
from modelyard.processes.streaming import READERS, Stream, StreamOptions, Tally, closing, read, send

F = TypeVar("F", bound=Callable[..., Any])
_TOLD_EVERY_S: Final = 5.0


def _broker(command: F) -> F:
    """Adds the options that say where the broker is."""
    for option in (
        click.option(
            "--broker-ca",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="The certificates that sign the broker's, with kafkas://, amqps://, natss:// and rediss://.",
        ),
        click.option(
            "--password-file", type=click.Path(path_type=Path, exists=True), help="A file with the broker's password."
        ),
        click.option(
            "--dir",
            "directory",
            type=click.Path(path_type=Path),
            default=Path("queue"),
            show_default=True,
            help="Where the embedded queue has its files.",
        ),
        click.option(
            "--broker",
            "broker",
            default="embedded:",
            show_default=True,
            help="kafka://, amqp://, nats:// or redis:// and the address; the embedded queue needs none.",
        ),
    ):
        command = option(command)
    return command


@click.group(short_help="Bind a service to topics of a message broker.")
def stream() -> None:
    """Answer the messages of a topic with a service, and publish the answers to another."""


@stream.command(name="run", short_help="Answer a topic's messages until Ctrl-C.")
@click.argument("service")
@click.option("--in", "source", required=True, help="The topic whose messages are answered.")
@click.option("--out", "target", required=True, help="The topic that the answers go to.")
@click.option("--group", help="The consumer group; without it, the service's name.")
@click.option("--member", help="This process's name in the group; without it, the machine's.")
@click.option(
    "--at-once",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Messages in hand, of different keys.",
)
@_broker
@platform_command
def stream_run(client: Client, *, service: str, **given: Any) -> int:  # noqa: ANN401  (the command line's options)
    """Ask SERVICE for every message of a topic and publish its answers: at least once, in order for each key.

    \b
    modelyard stream run digits --broker redis://127.0.0.1:6379 --in images --out labels
    """  # noqa: D301  (click reads \b as "keep these lines")
    options = StreamOptions(
        service=service,
        source=check_topic(given["source"]),
        target=check_topic(given["target"]),
        group=check_topic(given["group"] or service),
        member=given["member"] or socket.gethostname(),
        at_once=given["at_once"],
    )
    if options.source == options.target:
        raise InvalidRequest("a stream that reads its own answers never ends", hint="name another topic with --out")
    url = client.service(service).info.url
    queue = _opened(given)
    asyncio.run(_running(client, queue, options, url))
    return 0


async def _running(client: Client, queue: MessageQueue, options: StreamOptions, url: str) -> None:
    loop = asyncio.get_running_loop()
    told_at = float("-inf")

    def tell(tally: Tally) -> None:
        nonlocal told_at
        if loop.time() - told_at >= _TOLD_EVERY_S:
            told_at = loop.time()
            say(_line(tally))

    verify: Any = client.connection.ca or True
    async with httpx.AsyncClient(headers=client.connection.headers, verify=verify, trust_env=False) as http:
        running = Stream(queue, options, http, url, tell)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, running.stop)
        say(f"{options.service} answers {options.source} into {options.target}; Ctrl-C ends it")
        await closing(queue, running.run())
        say(_line(running.tally))


def _line(tally: Tally) -> str:
    lag = "unknown" if tally.lag is None else str(tally.lag)
    more = f", tried again {tally.tried_again}" if tally.tried_again else ""
    trouble = f"  ({tally.trouble})" if tally.trouble else ""
    return f"answered {tally.answered}, dead letters {tally.dead}{more}, lag {lag}{trouble}"


@stream.command(name="send", short_help="Put messages into a topic.")
@click.argument("topic")
@click.option(
    "--data", required=True, type=click.File("rb"), help="JSON lines, one message each; - reads them from stdin."
)
@click.option("--key", help="The field of each message whose value is its key.")
@click.option("--group", required=True, help="The group that they are kept for; it is made if it is missing.")
@_broker
def stream_send(*, topic: str, data: Any, key: str | None, group: str, **where: Any) -> None:  # noqa: ANN401
    """Put JSON lines into TOPIC. The same line at the same place has the same id, so sending again doubles nothing.

    Example: modelyard stream send images --group digits --data rows.jsonl
    """
    messages = [_message(number, line, key) for number, line in enumerate(data.read().splitlines(), 1) if line.strip()]
    queue = _opened(where)
    asyncio.run(closing(queue, send(queue, check_topic(topic), check_topic(group), messages)))
    say(f"{len(messages)} messages in {topic}")


@stream.command(name="read", short_help="Print what a topic holds, and take it.")
@click.argument("topic")
@click.option("--group", default=READERS, show_default=True, help="The group that reads.")
@click.option(
    "--wait", "wait_s", type=float, default=2.0, show_default=True, help="Seconds without a message that end it."
)
@_broker
def stream_read(*, topic: str, group: str, wait_s: float, **where: Any) -> None:  # noqa: ANN401
    """Print the messages of TOPIC as JSON lines, each with its id, key and headers, and acknowledge them.

    Dead letters of a stream lie in IN.GROUP.dead, for the group dead-letters.

    Example: modelyard stream read labels
    """
    queue = _opened(where)
    reading = read(queue, check_topic(topic), check_topic(group), member="cli", wait_s=wait_s, take=_print)
    count = asyncio.run(closing(queue, reading))
    say(f"{count} messages")


def _opened(where: Mapping[str, Any]) -> MessageQueue:
    """The queue that the options of `_broker` name."""
    word: Path | None = where["password_file"]
    return open_queue(
        where["broker"],
        password=word.read_text().strip() if word else "",
        ca=str(where["broker_ca"] or ""),
        directory=where["directory"],
    )


def _message(number: int, line: bytes, key: str | None) -> Message:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"line {number} is no JSON: {error}", hint="write one JSON value a line") from error
    named = value.get(key) if isinstance(value, dict) and key else None
    if key and named is None:
        raise InvalidRequest(f"line {number} has no field {quote(key)}", hint="each message needs its key")
    name = hashlib.sha256(f"{number}\n".encode() + line).hexdigest()[:32]
    return Message(id=name, body=line, key="" if named is None else str(named))


def _print(message: Message) -> None:
    try:
        body: Any = json.loads(message.body)
    except ValueError:
        body = message.body.decode("utf-8", "replace")
    shown = {"id": message.id, "key": message.key, "headers": dict(message.headers), "body": body}
    sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
