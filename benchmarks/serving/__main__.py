"""Measure the data plane against its peers, in interleaved paired rounds.

    python -m benchmarks.serving [--peers triton,mlserver,…|none] [--rounds 5] [--seconds 2] [--starts 3] [--write]

Installs the peers that are asked for in environments of their own, serves the same models with all, checks that the
answers are equal, then drives each with wrk. The server has the first core, the load the last. `--write` puts the
tables into docs/benchmarks.md. Ray Serve takes part only when it is named.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import Figure, show, store
from benchmarks.serving.cases import CASES, ECHO, OFF, OURS, ratios
from benchmarks.serving.environments import install, version
from benchmarks.serving.models import MODELS, write_models
from benchmarks.serving.pages import ratio_table, sample_table, start_table, write_page
from benchmarks.serving.peers.base import Peer
from benchmarks.serving.peers.known import PEERS
from benchmarks.serving.peers.modelyard import Echo, Modelyard
from benchmarks.serving.pinning import SERVER_CORE
from benchmarks.serving.rounds import Rounds, awake, takes_part, wake
from benchmarks.serving.servers import Server, check_answers, start
from benchmarks.serving.trees import Memory, memory
from benchmarks.serving.two import two_against_one

_SLOW_S = 6.0
_DEFAULT = ",".join(name for name in PEERS if name != "ray")


class Run:
    """One run: its servers, and what was measured."""

    def __init__(self, given: argparse.Namespace, place: Path) -> None:
        self._given = given
        self._models = place / "models"
        self._names = [] if given.peers == "none" else given.peers.split(",")
        rounds = f"--rounds {given.rounds} --starts {given.starts} --seconds {given.seconds}"
        self.command = f"python -m benchmarks.serving --peers {given.peers} {rounds}"
        self.starts: dict[str, list[float]] = {}
        self.held: dict[str, Memory] = {}
        self.servers: dict[str, Server] = {}
        self.compared = 0
        write_models(self._models)

    def measure(self) -> Rounds:
        """Start all, check all, then the rounds; everything is stopped at the end."""
        install(self._names)
        try:
            for name, peer in self._peers().items():
                self._start(name, peer)
            rounds = Rounds(self.servers, self._models, seconds=self._given.seconds)
            self._check()
            for number in range(self._given.rounds):
                print(f"round {number + 1} of {self._given.rounds} …", flush=True)
                rounds.run(number)
            self._check()
        finally:
            wake(list(self.servers.values()))
            for server in self.servers.values():
                server.stop()
        return rounds

    def figures(self, rounds: Rounds) -> list[Figure]:
        """All that has an aim."""
        figures = ratios(rounds.samples, rounds.kernel, self.command)
        if "mlserver" in self.starts:
            pairs = zip(self.starts[OURS], self.starts["mlserver"], strict=False)
            took = tuple(ours / theirs for ours, theirs in pairs)
            share = (self.held[OURS].pss / self.held["mlserver"].pss,)
            figures += [
                self._figure("start to first answer ÷ mlserver", took, aim=0.3),
                self._figure("memory of the process tree ÷ mlserver", share, aim=0.7),
            ]
        if SERVER_CORE is not None:
            two = two_against_one(self._models, rounds=3, seconds=self._given.seconds)
            figures.append(self._figure("M JSON, 64: two processes ÷ one, both cores", two, aim=1.4, better="more"))
        bad = sum(s.bad for (_, name), each in rounds.samples.items() if name in {OURS, OFF} for s in each)
        name = f"failed or wrong answers, {self.compared:,} compared by value"
        return [*figures, self._figure(name, (float(bad),), aim=0)]

    def _figure(self, name: str, values: tuple[float, ...], *, aim: float, better: str = "less") -> Figure:
        return Figure(name=name, values=values, unit="ratio", command=self.command, aim=aim, better=better)

    def _peers(self) -> Mapping[str, Peer]:
        ours: dict[str, Peer] = {
            ECHO: Echo(),
            OURS: Modelyard("modelyard", everything=True),
            OFF: Modelyard("modelyard-off", everything=False),
        }
        return ours | {name: PEERS[name] for name in self._names}

    def _start(self, name: str, peer: Peer) -> None:
        times = self.starts[name] = []
        while True:
            server = start(peer, self._models, core=SERVER_CORE)
            times.append(server.started_s)
            if len(times) >= self._given.starts or server.started_s > _SLOW_S:
                break
            server.stop()
        self.servers[name] = server
        for model in peer.models:
            self.compared += check_answers(server, self._models, model=MODELS[model], count=20)
        self.held[name] = memory([server.process.pid])
        print(f"{name}: first answer after {min(times):.2f} s", flush=True)

    def _check(self) -> None:
        """Each model in each encoding once with every server that is measured in it."""
        checked: set[tuple[str, str, bool]] = set()
        for case in CASES:
            for name, server in self.servers.items():
                asked = (name, case.model, case.binary)
                if asked in checked or not takes_part(case, name, server):
                    continue
                checked.add(asked)
                with awake(server):
                    model = MODELS[case.model]
                    self.compared += check_answers(server, self._models, model=model, binary=case.binary)


def main() -> None:
    """Measure, show, store, and write the page when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=_DEFAULT)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as place:
        run = Run(given, Path(place))
        rounds = run.measure()
        figures = run.figures(rounds)
    versions = {name: version(name) for name in run.servers if name in PEERS}
    tables = [ratio_table(figures), sample_table(rounds.samples), start_table(run.starts, run.held, versions)]
    print("\n\n".join(tables), end="\n\n")
    show(figures)
    raw = {f"{case} | {name}": [asdict(s) for s in each] for (case, name), each in rounds.samples.items()}
    held = {name: asdict(each) for name, each in run.held.items()}
    path = store("serving", figures, samples=raw, kernel=rounds.kernel, starts=run.starts, memory=held)
    print(f"\nstored as {path}")
    if given.write:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        foreign = statistics.median(sample.foreign for each in rounds.samples.values() for sample in each)
        said = (
            f"Measured on {day} with `{run.command}`; other programs took {foreign:.0%} of a core meanwhile (median)."
        )
        write_page("serving", "\n\n".join([said, *tables]))


if __name__ == "__main__":
    main()
