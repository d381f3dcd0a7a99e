"""A keeper of workers that tests may look into: a real supervisor behind its real order socket."""

import asyncio
import json
import threading
from pathlib import Path

from modelyard.foundation.supervision import ChildSpec, Supervisor
from modelyard.ports.orchestrator import ReplicaSpec
from modelyard.processes.all_in_one.orders import Orders


class RunningSupervisor:
    """A supervisor with its order socket, on a loop in a thread of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.socket = place / "s.sock"
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self.loop).result(30)

    async def _open(self) -> None:
        self.supervisor = Supervisor(on_event=lambda child, text: None)
        self.orders = Orders(self.supervisor, make_worker=self._worker)
        await self.orders.open(self.socket)

    def _worker(self, replica: ReplicaSpec) -> ChildSpec:
        config = self.place / f"{replica.id}.json"
        config.write_text(json.dumps({}))
        return ChildSpec(
            name=f"worker {replica.id}",
            module="modelyard.testing.programs.sleeper",
            arguments=("--config", str(config)),
            facts={"replica_id": replica.id, "address": str(self.place / f"{replica.id}.sock")},
        )

    def close(self) -> None:
        async def end() -> None:
            await self.orders.close()
            await self.supervisor.stop_all([child.spec.name for child in self.supervisor.children], grace_s=5)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()
