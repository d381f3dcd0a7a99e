"""What `serve` starts: a static routing table, the model servers, and an isolated worker where the model needs one."""

from pathlib import Path
from typing import NamedTuple

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.domain.routing import Backend, ServiceRoute
from modelyard.foundation.supervision import ChildSpec
from modelyard.processes.configuring import child, edge_config, static_servers
from modelyard.processes.edge_rules import Exposure


class ListenFds(NamedTuple):
    """Listening sockets, by the protocol that is spoken on them."""

    http: int
    grpc: int


class Placement(NamedTuple):
    """How many servers listen, and the device that the model is asked onto, literally."""

    servers: int
    device: str


def plan(
    name: str, package: ServingPackage, directory: Path, *, exposure: Exposure, placement: Placement, fds: ListenFds
) -> tuple[ChildSpec, ...]:
    """Children that serve `package` as `name` on the listening sockets `fds`; their files lie beside `directory`."""
    place = directory.parent
    workers: list[ChildSpec] = []
    sockets: tuple[str, ...] = ()
    if package.isolation is Isolation.PROCESS:
        socket = place / "worker.sock"
        config = {
            "package": str(directory),
            "socket": str(socket),
            "title": f"modelyard: model-worker {name} 0",
            "device": placement.device,
            "environments": str(place / "environments"),
        }
        workers.append(child("model-worker-0", "model_worker", config, place=place))
        sockets = (str(socket),)
    route = ServiceRoute(
        name=name,
        revision=1,
        isolation=package.isolation,
        backends=(
            Backend(
                model=name,
                version="1",
                digest=package.digest,
                package=str(directory),
                revision=1,
                workers=sockets,
                device=placement.device,
            ),
        ),
    )
    listening = {"fds": [fds.http], "grpc_fds": [fds.grpc], **edge_config(exposure)}
    servers = static_servers([route], servers=placement.servers, fds=tuple(fds), place=place, config=listening)
    return (*workers, *servers)
