"""A writer of the records that is killed, again and again: what it had acknowledged is looked for afterwards.

    python -m tests.faults.writer FILE --rounds N --seed S      prints a JSON document with what was found

Each round forks a process that writes projects, each with its entry of history in the same unit of work, and says so
after each commit; it is killed at a random moment. Forked: a thousand starts of the interpreter would take an hour.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import insert

from modelyard.control.history import append
from modelyard.control.identity import system_actor
from modelyard.control.identity.tables import projects
from modelyard.control.records import Database, open_records


def write_until_killed(path: Path, number: int, acknowledge: int) -> None:
    """Commit one project after the other, and say which."""
    database, count = Database.at(path), 0
    while True:
        name = f"p-{number}-{count}"
        with database.begin() as tx:
            tx.execute(insert(projects).values(name=name, created_at=tx.now))
            append(tx, actor=system_actor("writer"), action="project.created", subject=f"project/{name}", project=name)
        os.write(acknowledge, f"{name}\n".encode())
        count += 1


def round_of(path: Path, number: int, chance: random.Random) -> list[str]:
    """One writer, killed; the names that it had acknowledged."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            write_until_killed(path, number, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        first = stream.readline()
        time.sleep(chance.random() * 0.05)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        rest = stream.read()
    return [line for line in (first + rest).decode().split("\n")[:-1] if line]


def examine(path: Path, acknowledged: list[str]) -> dict[str, int]:
    """What is not as it should be: acknowledged and lost, damaged, in one table and not in the other."""
    with closing(sqlite3.connect(path)) as connection:
        kept = {name for (name,) in connection.execute("SELECT name FROM projects WHERE name LIKE 'p-%'")}
        told = {
            subject.removeprefix("project/")
            for (subject,) in connection.execute("SELECT subject FROM history WHERE subject LIKE 'project/p-%'")
        }
        [whole] = connection.execute("PRAGMA integrity_check").fetchone()
    return {"lost": len(set(acknowledged) - kept), "damaged": int(whole != "ok"), "uneven": len(kept ^ told)}


def main() -> int:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    opened = open_records(given.file, backups=given.file.with_name("backups"))
    opened.database.close()
    chance = random.Random(given.seed)
    found = {"rounds": 0, "acknowledged": 0, "lost": 0, "damaged": 0, "uneven": 0}
    acknowledged: list[str] = []
    for number in range(given.rounds):
        acknowledged += round_of(given.file, number, chance)
        found["rounds"] += 1
        for name, count in examine(given.file, acknowledged).items():
            found[name] = found[name] + count if name == "damaged" else max(found[name], count)
    found["acknowledged"] = len(acknowledged)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
