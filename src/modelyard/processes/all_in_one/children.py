"""What the platform consists of: the control plane, the model servers, and isolated workers as they are ordered."""

import hashlib
import json
import math
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from modelyard.foundation.documents import from_json, to_json, to_plain
from modelyard.foundation.listening import url_host
from modelyard.foundation.places import Places
from modelyard.foundation.settings import load
from modelyard.foundation.supervision import ChildSpec
from modelyard.ports.orchestrator import ReplicaSpec
from modelyard.processes.all_in_one.options import UpOptions
from modelyard.processes.configuring import child, edge_config

CONTROL: Final = "control-plane"
NODE: Final = "node"
SENDER: Final = "webhook-sender"
_WORKER: Final = "model-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlaces:
    """Where the workers of one keeper have their files: orders and settings, sockets, logs, environments."""

    run: Path
    workers: Path
    logs: Path
    environments: Path
    sealing_key: Path

    @classmethod
    def of(cls, places: Places, node: str | None = None) -> "WorkerPlaces":
        """Those of the supervisor, or of a node's agent."""
        run = places.run if node is None else places.run / "nodes" / node
        workers = places.workers if node is None else run / "w"
        return cls(
            run=run,
            workers=workers,
            logs=places.logs,
            environments=places.environments,
            sealing_key=places.sealing_key,
        )

    def create(self) -> None:
        """Make the directories, private to the user."""
        for place in (self.run, self.workers):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """The listening sockets that the supervisor owns."""

    control: socket.socket
    inference: socket.socket
    grpc: socket.socket

    def write_down(self, path: Path) -> None:
        """Note their numbers, under which the children inherit them, for a supervisor that comes after this one."""
        numbers = {"control": self.control, "inference": self.inference, "grpc": self.grpc}
        path.write_text(json.dumps({name: listener.fileno() for name, listener in numbers.items()}))

    @staticmethod
    def read_numbers(path: Path) -> dict[str, int] | None:
        """What an earlier supervisor noted, if it did."""
        with suppress(OSError, ValueError, KeyError):
            numbers = json.loads(path.read_text(encoding="utf-8"))
            return {name: int(numbers[name]) for name in ("control", "inference", "grpc")}
        return None


def control_spec(options: UpOptions, places: Places, sockets: Sockets) -> ChildSpec:
    """The control plane."""
    exposure = options.exposure
    port = sockets.inference.getsockname()[1]
    config = {
        "data": str(places.data),
        "fd": sockets.control.fileno(),
        "internal_socket": str(places.control_socket),
        "supervisor_socket": str(places.supervisor_socket),
        "auth": "required" if exposure.auth_required else "open",
        "inference_url": f"{exposure.scheme}://{url_host(exposure.host)}:{port}",
        "model_servers": options.servers,
        "nodes": {name: str(keeper_socket(places, name)) for name in options.node_names},
        "settings": str(options.settings.resolve()) if options.settings else None,
        **edge_config(exposure),
    }
    return child(
        CONTROL,
        "control_plane",
        config,
        place=places.run,
        fds=(sockets.control.fileno(),),
        log=places.logs / f"{CONTROL}.log",
        tied=False,
    )


def server_specs(options: UpOptions, places: Places, sockets: Sockets) -> list[ChildSpec]:
    """The pool of listening model servers: one socket for all of them."""
    threads = max(1, (os.cpu_count() or 1) // options.servers)
    specs = []
    for index in range(options.servers):
        name = f"model-server-{index}"
        config = {
            "id": name,
            "index": index,
            "table": {"control_socket": str(places.control_socket), "cache": str(places.run / f"{name}.table")},
            "fds": [sockets.inference.fileno()],
            "grpc_fds": [sockets.grpc.fileno()],
            "pepper": str(places.pepper),
            "sealing_key": str(places.sealing_key),
            "metrics": str(places.metrics),
            "deferred": str(places.deferred),
            "auth": "required" if options.exposure.auth_required else "open",
            "threads": threads,
            "drain_s": options.grace_s,
            **edge_config(options.exposure),
        }
        specs.append(
            child(
                name,
                "model_server",
                config,
                place=places.run,
                fds=(sockets.inference.fileno(), sockets.grpc.fileno()),
                log=places.logs / f"{name}.log",
                tied=False,
            )
        )
    return specs


def sender_specs(options: UpOptions, places: Places) -> list[ChildSpec]:
    """The sender of webhooks, where they are switched on."""
    settings = load(file=options.settings, environment=os.environ).deferred
    if not settings.webhooks:
        return []
    config = {
        "deferred": str(places.deferred),
        "key": str(places.webhook_key),
        "metrics": str(places.metrics),
        "allow_private": settings.webhook_private,
    }
    log = places.logs / f"{SENDER}.log"
    return [child(SENDER, "webhook_sender", config, place=places.run, log=log, tied=False)]


def job_worker_specs(options: UpOptions, places: Places) -> list[ChildSpec]:
    """The workers of jobs."""
    settings = load(file=options.settings, environment=os.environ).jobs
    specs = []
    for number in range(settings.workers):
        config = {
            "number": number,
            "control_socket": str(places.control_socket),
            "jobs": str(places.jobs),
            "job_files": str(places.job_files),
            "artifacts": str(places.artifacts),
            "packages": str(places.packages),
            "memory_bytes": settings.memory_mib << 20,
            "disk_bytes": settings.disk_mib << 20,
            "log_bytes": settings.log_kib << 10,
            "limit_s": settings.limit_hours * 3600.0,
            "lease_s": settings.lease_s,
        }
        name = f"job-worker-{number}"
        log = places.logs / f"{name}.log"
        specs.append(child(name, "job_worker", config, place=places.run, log=log, tied=False))
    return specs


def keeper_socket(places: Places, node: str) -> Path:
    """Where the agent of a node takes orders."""
    return WorkerPlaces.of(places, node).run / "orders.sock"


def agent_specs(options: UpOptions, places: Places) -> list[ChildSpec]:
    """The agents of the nodes, each with its share of the machine; none where the supervisor keeps the workers."""
    specs = []
    for name in options.node_names:
        own = WorkerPlaces.of(places, name)
        own.create()
        config = {
            "node": name,
            "socket": str(keeper_socket(places, name)),
            "control_socket": str(places.control_socket),
            "run": str(own.run),
            "workers": str(own.workers),
            "logs": str(own.logs),
            "environments": str(own.environments),
            "sealing_key": str(own.sealing_key),
            "cpus": (os.cpu_count() or 1) / options.nodes,
            "memory_bytes": psutil.virtual_memory().total // options.nodes,
            "grace_s": options.grace_s,
        }
        log = places.logs / f"{name}.log"
        specs.append(child(f"{NODE} {name}", "node_agent", config, place=places.run, log=log, tied=False))
    return specs


def worker_name(replica_id: str) -> str:
    """What the supervisor calls a worker."""
    return f"{_WORKER} {replica_id}"


def worker_again(places: Places, name: str) -> ChildSpec | None:
    """The worker that an earlier supervisor called `name`, as it was ordered then; None when that is not known."""
    if not name.startswith(f"{_WORKER} "):
        return None
    with suppress(OSError, msgspec.MsgspecError):
        own = WorkerPlaces.of(places)
        return worker_spec(own, from_json((places.run / f"{name}.order").read_bytes(), ReplicaSpec))
    return None


def worker_spec(places: WorkerPlaces, replica: ReplicaSpec, *, with_agent: bool = False) -> ChildSpec:
    """An isolated worker, as the control plane orders it. The socket's name is short: the kernel bounds its path.

    A worker `with_agent` belongs to its keeper's process group and ends with it; else it outlives its keeper.
    """
    (places.run / f"{worker_name(replica.id)}.order").write_bytes(to_json(replica))
    address = places.workers / f"{hashlib.sha256(replica.id.encode()).hexdigest()[:16]}.sock"
    name = worker_name(replica.id)
    config = {
        "package": replica.package,
        "socket": str(address),
        "title": f"modelyard: model-worker {replica.service} {replica.id.rpartition('.')[2]}",
        "threads": replica.threads,
        "memory": replica.memory_bytes,
        "cores": None if replica.cpus is None else max(1, math.ceil(replica.cpus)),
        "device": replica.device,
        "environments": str(places.environments),
        "env": {variable: to_plain(sealed) for variable, sealed in replica.env.items()},
        "sealing_key": str(places.sealing_key),
    }
    return child(
        name,
        "model_worker",
        config,
        place=places.run,
        log=places.logs / f"model-worker-{replica.id}.log",
        tied=with_agent,
        own_session=not with_agent,
        facts={"replica_id": replica.id, "address": str(address)},
        memory_bytes=replica.memory_bytes,
    )
