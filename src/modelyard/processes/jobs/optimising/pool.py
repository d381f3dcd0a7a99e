"""Real model servers for points of the search: the programs that serve everybody, with a socket of their own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.client.tensors import HEADER_LENGTH, as_tensor, encode_request
from modelyard.domain.routing import Backend, ServiceRoute
from modelyard.domain.tensors import TensorSpec
from modelyard.foundation.listening import bind
from modelyard.foundation.samples import Sample
from modelyard.foundation.supervision import Child, Supervisor
from modelyard.processes.configuring import static_servers
from modelyard.processes.jobs.optimising.figures import busy_s
from modelyard.processes.jobs.optimising.load import Door
from modelyard.processes.jobs.optimising.points import Point

if TYPE_CHECKING:
    import numpy as np

_START_S: Final = 180.0
_GRACE_S: Final = 5.0
_DIFFERENT: Final = 256
"""How many different requests are made of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which conditions points are measured: servers and cores there are, and the load that comes."""

    servers: int
    cores: int
    rate: float
    rows: int

    @property
    def threads(self) -> int:
        """Threads of one run where a service does not say."""
        return max(1, self.cores // self.servers)


class Pool:
    """Servers that hold some points, each as a service of its own."""

    def __init__(self, points: Sequence[Point], children: Sequence[Child], url: str) -> None:
        self._children = children
        self._names = {id(point): f"p{index}" for index, point in enumerate(points)}
        self.door = Door(url)

    def path(self, point: Point) -> str:
        """Where a point is asked."""
        return f"/v2/models/{self._names[id(point)]}"

    async def measure(
        self, point: Point, sample: Sample, conditions: Conditions, *, seconds: float, chance: "np.random.Generator"
    ) -> None:
        """One round of load on a point, kept with it; what is wrong with it takes it out."""
        path = f"{self.path(point)}/infer"
        contract = point.form.package.contract
        requests = made_requests(path, contract.inputs, contract.outputs, sample, rows=conditions.rows, chance=chance)
        warm = await self.door.warm(requests)
        if warm.failed:
            point.reason = warm.reason
            return
        before = busy_s(self._pids())
        found = await self.door.drive(requests, rate=conditions.rate, seconds=seconds, chance=chance)
        point.add(found, busy_s=busy_s(self._pids()) - before, rows=conditions.rows)

    def _pids(self) -> list[int]:
        return [each.pid for each in self._children if each.pid is not None]


@asynccontextmanager
async def serving(points: Sequence[Point], conditions: Conditions, *, place: Path) -> AsyncIterator[Pool]:
    """Start servers that hold `points`; their files lie below the new directory `place`. All are gone afterwards.

    Raises:
        StartRefused: a server did not start, with its own words.
    """
    services = [_route(f"p{index}", point) for index, point in enumerate(points)]
    supervisor = Supervisor(on_event=lambda _, __: None)
    with closing(bind("127.0.0.1", 0, given=False, option="")) as listener:
        fds = (listener.fileno(),)
        config = {"fds": list(fds), "threads": conditions.threads, "wait_first_s": _START_S}
        specs = static_servers(services, servers=conditions.servers, fds=fds, place=place, config=config)
        children = [supervisor.start(replace(spec, restart=False, log=place / f"{spec.name}.log")) for spec in specs]
        pool: Pool | None = None
        try:
            await asyncio.gather(*(supervisor.started(each, timeout_s=_START_S) for each in children))
            pool = Pool(points, children, f"http://127.0.0.1:{listener.getsockname()[1]}")
            yield pool
        finally:
            if pool is not None:
                pool.door.close()
            await supervisor.stop_all([each.spec.name for each in children], grace_s=_GRACE_S)


def made_requests(  # noqa: PLR0913  (what a request is made of)
    path: str,
    given: Sequence[TensorSpec],
    wanted: Sequence[TensorSpec],
    sample: Sample,
    *,
    rows: int,
    chance: "np.random.Generator",
    headers: Sequence[tuple[str, str]] = (),
) -> list[bytes]:
    """Whole HTTP requests (V2 with binary tensors, in both directions) of `rows` rows each, drawn from the sample."""
    datatypes = {spec.name: str(spec.datatype) for spec in given}
    outputs = [spec.name for spec in wanted]
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    made = []
    for _ in range(min(_DIFFERENT, sample.rows)):
        chosen = chance.integers(sample.rows, size=rows)
        inputs = {
            name: (datatypes[name], as_tensor(values[chosen], datatype=datatypes[name], name=name))
            for name, values in sample.inputs.items()
        }
        body, size = encode_request(inputs, outputs=outputs)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/octet-stream\r\n"
            f"{HEADER_LENGTH}: {size}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        )
        made.append(head.encode() + body)
    return made


def _route(name: str, point: Point) -> ServiceRoute:
    form = point.form
    backend = Backend(
        model=name,
        version="1",
        digest=form.package.digest,
        package=str(form.directory),
        revision=1,
        threads=point.threads,
    )
    return ServiceRoute(name=name, revision=1, backends=(backend,), batching=point.batching)
