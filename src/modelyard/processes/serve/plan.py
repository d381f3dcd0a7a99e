"""What `serve` starts: a static routing table, the model servers, and an isolated worker where the model needs one."""

from pathlib import Path
from typing import Any, NamedTuple

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.domain.routing import Backend, RoutingTable, ServiceRoute
from modelyard.foundation.documents import to_json
from modelyard.foundation.supervision import ChildSpec
from modelyard.processes.configuring import child, edge_config
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
    table = place / "table.json"
    table.write_bytes(to_json(RoutingTable(revision=1, services=(route,))))
    shared: dict[str, Any] = {
        "table": {"static": str(table)},
        "fds": [fds.http],
        "grpc_fds": [fds.grpc],
        "metrics": str(place / "metrics"),
        "log_level": "warning",
        **edge_config(exposure),
    }
    (place / "metrics").mkdir(exist_ok=True)
    return (
        *workers,
        *(
            child(
                f"model-server-{index}",
                "model_server",
                {"id": f"model-server-{index}", "index": index, **shared},
                place=place,
                fds=tuple(fds),
            )
            for index in range(placement.servers)
        ),
    )
