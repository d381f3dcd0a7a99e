"""A consumer that a test kills: writes each message's effect into a SQLite file, once for an id, then acknowledges.

python -m modelyard.testing.programs.queue_consumer URL DIRECTORY TOPIC SINK PAUSE_S
"""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from modelyard.processes.queues import open_queue


def prepare(sink: Path) -> None:
    """Make the file of effects."""
    with closing(sqlite3.connect(sink)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE effects"
            " (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, key TEXT NOT NULL)"
        )


def count(sink: Path) -> int:
    """How many effects there are."""
    with closing(sqlite3.connect(sink)) as connection:
        return int(connection.execute("SELECT count(*) FROM effects").fetchone()[0])


async def _consume(url: str, directory: Path, topic: str, sink: Path, pause_s: float) -> None:
    queue = open_queue(url, directory=directory)
    subscription = await queue.subscribe(topic, "g", member="consumer", prefetch=20, most_attempts=1000)
    with closing(sqlite3.connect(sink, isolation_level=None, timeout=30)) as connection:
        while True:
            delivery = await subscription.receive(wait_s=5)
            if delivery is None:
                continue
            effect = (delivery.message.id, delivery.message.key)
            connection.execute("INSERT INTO effects (id, key) VALUES (?, ?) ON CONFLICT DO NOTHING", effect)
            await asyncio.sleep(pause_s)
            await subscription.ack(delivery)


def main() -> None:
    """Consume until killed."""
    url, directory, topic, sink, pause_s = sys.argv[1:]
    asyncio.run(_consume(url, Path(directory), topic, Path(sink), float(pause_s)))


if __name__ == "__main__":
    main()
