"""A leader's loop that counts in a register, and that takes itself for the leader long after it was one.

    python -m tests.faults.register URL NAME --attempts N      one JSON line for each thing that happens

It leads when it can. Each turn reads the register, writes one more, and a line of the log with its token, in one unit
of work of a leader. When it is refused it does not look whether it still leads: it tries on, `N` times, before it
believes it. So a process that was stopped and goes on shows how many writes with an old token are accepted.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url

from modelyard.control.records import Leadership, LeadershipLost, open_served_records
from modelyard.domain.errors.platform import Unavailable

TABLES = """
CREATE TABLE register (value bigint NOT NULL);
INSERT INTO register VALUES (0);
CREATE TABLE register_log (
    place bigserial PRIMARY KEY, value bigint NOT NULL, token bigint NOT NULL, name text NOT NULL
)
"""


class Stubborn(Leadership):
    """Keeps the token that it once had until `forget`."""

    kept: int | None = None

    @property
    def token(self) -> int | None:
        """The first one since it forgot."""
        if self.kept is None:
            self.kept = super().token
        return self.kept

    def forget(self) -> None:
        """Believe again what the lease says."""
        self.kept = None


def say(**what: object) -> None:
    """One line, at once."""
    os.write(sys.stdout.fileno(), (json.dumps(what) + "\n").encode())


def main() -> int:
    """Count until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("--attempts", type=int, default=120)
    given = parser.parse_args()
    records = open_served_records(make_url(given.url), backups=Path(tempfile.gettempdir()))
    database, refused = records.database, 0
    lead = Stubborn(database, holder=f"{given.name}:{os.getpid()}")
    database.lead = lead
    lead.start()
    say(event="started")
    while True:
        token = lead.token
        if token is None:
            lead.forget()
            time.sleep(0.1)
            continue
        try:
            with database.leading():
                try:
                    with database.begin() as tx:
                        value = int(tx.scalar(text("SELECT value FROM register")) or 0) + 1
                        tx.execute(text("UPDATE register SET value = :value"), {"value": value})
                        log = text("INSERT INTO register_log (value, token, name) VALUES (:value, :token, :name)")
                        tx.execute(log, {"value": value, "token": token, "name": given.name})
                    say(event="written", value=value, token=token)
                    time.sleep(0.02)
                except LeadershipLost:
                    refused += 1
        except Unavailable:  # the server ended what stood still
            say(event="cut off", token=token)
        if refused == given.attempts:
            say(event="gave up", refused=refused, token=token)
            refused = 0
            lead.forget()


if __name__ == "__main__":
    sys.exit(main())
