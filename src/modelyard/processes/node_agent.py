"""A node's agent: keeps the isolated workers of one node running, and says once a second that it is there.

    python -m modelyard.processes.node_agent --config FILE [--ready-fd N] [--tied-to PID]

The configuration is an `AgentConfig` as JSON. It takes the same orders as the supervisor, on a socket of its own. Its
workers are in its process group and end with it: a node is lost as a whole.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import psutil

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import Unavailable
from modelyard.domain.nodes import NodeReport
from modelyard.foundation.documents import to_json
from modelyard.foundation.local_http import ask
from modelyard.foundation.supervision import EXIT_REFUSED, Child, Supervisor
from modelyard.foundation.supervision.inside import ChildArguments, child_arguments
from modelyard.foundation.telemetry import set_up_logging
from modelyard.processes.all_in_one.children import WorkerPlaces, worker_spec
from modelyard.processes.all_in_one.orders import Orders

HEARTBEAT_S: Final = 1.0
_PATIENCE_S: Final = 3.0


class AgentConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of one agent: the node's name, its order socket, its places, and what it gives to workers."""

    node: str
    socket: str
    control_socket: str
    run: str
    workers: str
    logs: str
    environments: str
    sealing_key: str
    cpus: float
    memory_bytes: int
    grace_s: float = 10.0


class NodeAgent:
    """One running agent."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._started_at = time.time()
        self._supervisor = Supervisor(on_event=_told)

    async def run(self, arguments: ChildArguments) -> None:
        """Keep workers until SIGTERM, then end them in order."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        config = self._config
        places = WorkerPlaces(
            run=Path(config.run),
            workers=Path(config.workers),
            logs=Path(config.logs),
            environments=Path(config.environments),
            sealing_key=Path(config.sealing_key),
        )
        places.create()
        orders = Orders(self._supervisor, make_worker=partial(worker_spec, places, with_agent=True))
        await orders.open(Path(config.socket))
        arguments.ready()
        async with asyncio.TaskGroup() as group:
            heart = group.create_task(self._beat(), name="heartbeat")
            await stop.wait()
            heart.cancel()
        await orders.close()
        names = [child.spec.name for child in self._supervisor.children]
        await self._supervisor.stop_all(names, grace_s=config.grace_s)

    async def _beat(self) -> None:
        path = f"/internal/v1/nodes/{self._config.node}/report"
        control = Path(self._config.control_socket)
        while True:
            self._supervisor.check_memory()
            with suppress(OSError, TimeoutError, EOFError, Unavailable):  # the control plane may be away
                await ask(control, "POST", path, body=to_json(self._report()), patience_s=_PATIENCE_S)
            await asyncio.sleep(HEARTBEAT_S)

    def _report(self) -> NodeReport:
        used = sum(_memory(child) for child in self._supervisor.children)
        return NodeReport(
            node=self._config.node,
            pid=os.getpid(),
            started_at=self._started_at,
            cpus=self._config.cpus,
            memory_bytes=self._config.memory_bytes,
            memory_available_bytes=max(0, min(self._config.memory_bytes - used, psutil.virtual_memory().available)),
            load=round(os.getloadavg()[0], 2),
            workers=len(self._supervisor.children),
        )


def _told(child: Child, text: str) -> None:
    print(f"{child.spec.name}: {text}", file=sys.stderr)  # noqa: T201  (the agent's log)


def _memory(child: Child) -> int:
    with suppress(psutil.Error):
        if child.pid is not None:
            return int(psutil.Process(child.pid).memory_info().rss)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one agent; the exit code."""
    arguments = child_arguments(list(sys.argv[1:] if argv is None else argv), title="modelyard: node")
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=AgentConfig)
        set_up_logging(level="info")
        _name_process(config.node)
        asyncio.run(NodeAgent(config).run(arguments))
    except ModelyardError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    except (OSError, ValueError) as error:
        print(f"the node's agent cannot start: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    return 0


def _name_process(node: str) -> None:
    import setproctitle

    setproctitle.setproctitle(f"modelyard: node {node}")


if __name__ == "__main__":
    sys.exit(main())
