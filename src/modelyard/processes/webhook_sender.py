"""The sender of webhooks: one process that knows no key but the one it signs with, and speaks to the world outside.

    python -m modelyard.processes.webhook_sender --config FILE [--ready-fd N] [--tied-to PID]

The configuration is a `SenderConfig` as JSON. It delivers what model servers leave in the directory of deferred
requests. It is started only where webhooks are switched on.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import setproctitle

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.key_files import load_key, write_private
from modelyard.foundation.metrics import Book
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import ChildArguments, child_arguments
from modelyard.foundation.telemetry import set_up_logging
from modelyard.inference.deferred import WEBHOOKS, Sender, secret_of


class SenderConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of the sender: where messages lie, the file of the signing key, the directory of mapped counters."""

    deferred: str
    key: str
    metrics: str
    allow_private: bool = False


async def _send(config: SenderConfig, arguments: ChildArguments) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    key = load_key(Path(config.key))
    write_private(Path(config.key).with_name("webhook.secret"), secret_of(key) + "\n")  # for those who receive
    book = Book.open(Path(config.metrics), "webhook-sender")
    sender = Sender(
        Path(config.deferred),
        key=key,
        allow_private=config.allow_private,
        tell=lambda outcome: book.counter(WEBHOOKS, outcome).add(),
    )
    sending = asyncio.create_task(sender.run(), name="webhooks")
    arguments.ready()
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait([sending, ended], return_when=asyncio.FIRST_COMPLETED)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=not sending.done())
    book.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sender; the exit code."""
    arguments = child_arguments(list(sys.argv[1:] if argv is None else argv), title="modelyard: webhook-sender")
    setproctitle.setproctitle("modelyard: webhook-sender")
    try:
        set_up_logging(level="info")
        asyncio.run(_send(msgspec.json.decode(arguments.config.read_bytes(), type=SenderConfig), arguments))
    except ModelyardError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    except (OSError, ValueError) as error:
        print(f"the sender of webhooks cannot start: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
