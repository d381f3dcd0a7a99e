"""What an experiment is, and what it is handed: scale, seed, a stand, load, injections with their times, checks."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.faults.ledger import Ledger
from tests.faults.load import Load
from tests.faults.stand import Service, Stand

SETTINGS = "environments:\n  memory_mib: 1024\n  run_limit_s: 3.0\n"
"""Of the shared stand: small bounds on own code, so that an experiment need not fill the machine to meet them."""
CORPUS = Path(__file__).parent.parent / "corpora" / "faults.yaml"


class Unable(Exception):
    """This machine lacks what an experiment needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large an experiment is. `requests` is the least number where the file asks for ≥ 10,000 or ≥ 20,000."""

    rate: float
    steady_s: float
    fault_s: float
    after_s: float
    rounds: int
    requests: int
    short: bool


FULL = Scale(rate=300.0, steady_s=20.0, fault_s=40.0, after_s=20.0, rounds=20, requests=20_000, short=False)
SHORT = Scale(rate=40.0, steady_s=0.5, fault_s=2.0, after_s=1.0, rounds=2, requests=60, short=True)


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against its limit."""

    name: str
    value: float
    limit: str
    passed: bool
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A hypothesis and how it is tried."""

    id: str
    title: str
    hypothesis: str
    injection: str
    source: str
    run: Callable[["Run"], None]
    short: bool


REGISTRY: dict[str, Experiment] = {}


def experiment(
    name: str, *, title: str = "", hypothesis: str = "", injection: str = "", short: bool = True
) -> Callable[[Callable[["Run"], None]], Callable[["Run"], None]]:
    """Enter a function under this id. `short` says that `make test` runs it in its small form."""

    def enter(function: Callable[["Run"], None]) -> Callable[["Run"], None]:
        listed = _listed().get(name, {})
        REGISTRY[name] = Experiment(
            id=name,
            title=title or listed["title"],
            hypothesis=hypothesis or listed["hypothesis"],
            injection=injection or str(listed["inject"]),
            source="faults.yaml" if listed else "own",
            run=function,
            short=short,
        )
        return function

    return enter


@cache
def _listed() -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in yaml.safe_load(CORPUS.read_text())["experiments"]}


class Stands:
    """Platforms by their options, started when first asked for and shared; all of them end with `close`."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="modelyard-faults-"))
        self._stands: dict[tuple[str, ...], Stand] = {}

    def get(self, *options: str, settings: str = "") -> Stand:
        """The stand with these options of `modelyard up`."""
        key = (*options, settings)
        if key not in self._stands:
            self._stands[key] = Stand(self._root / str(len(self._stands)), options, settings).start()
        return self._stands[key]

    def fresh(self, *options: str, settings: str = "") -> Stand:
        """One that nobody else has; ended by the caller or at the end."""
        stand = Stand(self._root / str(len(self._stands)), options, settings)
        self._stands[f"fresh {len(self._stands)}",] = stand
        return stand.start()

    def folder(self) -> Path:
        """An empty directory, gone at the end."""
        return Path(tempfile.mkdtemp(dir=self._root))

    def discard(self, stand: Stand) -> None:
        """End one that is not as it should be any more."""
        stand.end()
        self._stands = {key: each for key, each in self._stands.items() if each is not stand}

    def close(self) -> None:
        """End all."""
        for stand in self._stands.values():
            stand.end()
        shutil.rmtree(self._root, ignore_errors=True)


@dataclass
class Run:
    """One run of an experiment."""

    experiment: Experiment
    scale: Scale
    seed: int
    stands: Stands
    checks: list[Check] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    unable: str = ""
    cleanup: ExitStack = field(default_factory=ExitStack)
    chance: random.Random = field(init=False)
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def stand(self, *options: str, settings: str = SETTINGS) -> Stand:
        """A platform with two model servers, unless the options say otherwise; shared with other experiments."""
        return self.stands.get(*(options or ("--servers", "2")), settings=settings)

    def load(self, service: Service, *, rate: float | None = None, deadline_s: float = 10.0, **more: Any) -> Load:
        """Load on a service; it starts when it is entered."""
        return Load(
            service.stand.platform.inference_url,
            service.questions,
            rate=rate or self.scale.rate,
            deadline_s=deadline_s,
            seed=self.seed,
            **more,
        )

    def steady(self, load: Load) -> None:
        """The time before the fault."""
        load.wait_s(self.scale.steady_s)
        self.note("steady state measured")

    def after(self, load: Load) -> None:
        """The time after the fault, longer until there are as many requests as asked for."""
        load.wait_s(self.scale.after_s)
        missing = self.scale.requests - len(load.ledger.entries)
        if missing > 0:
            load.wait_for(missing, limit_s=60 + 3 * missing / load.rate)

    def note(self, what: str) -> None:
        """Remember that something happened now."""
        self.events.append((round(time.perf_counter() - self._began, 3), what))

    def inject(self, what: str, action: Callable[[], Any]) -> Any:
        """Do it, and remember when."""
        self.note(what)
        return action()

    def check(
        self,
        name: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        unit: str = "",
        detail: str = "",
    ) -> None:
        """A figure with its limits."""
        passed = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        limits = ["" if at_most is None else f"≤ {at_most:g}", "" if at_least is None else f"≥ {at_least:g}"]
        limit = " and ".join(filter(None, limits))
        self.checks.append(Check(name, round(float(value), 4), limit, passed, unit, detail))

    def check_no_failures(self, load: Load, *, begin: float = 0.0, end: float = float("inf")) -> None:
        """Every request of that time got its right answer in time, and there were enough of them."""
        ledger = load.ledger.between(begin, end)
        self.keep(load)
        self.check("failed requests", len(ledger.failed), at_most=0, detail="; ".join(ledger.examples()))
        self.check("requests", len(ledger.entries), at_least=self.scale.requests)

    def keep(self, load: Load) -> None:
        """Put the load's summary into the report."""
        ledger: Ledger = load.ledger
        self.figures |= {
            "requests": len(ledger.entries),
            "outcomes": dict(ledger.outcomes),
            "p50_ms": round(1000 * ledger.quantile(0.5, "ok"), 2),
            "p99_ms": round(1000 * ledger.quantile(0.99, "ok"), 2),
        }

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> Sequence[str]:
        """What was not, in words."""
        return [
            f"{check.name}: {check.value:g} {check.unit} is not {check.limit}. {check.detail}".strip()
            for check in self.checks
            if not check.passed
        ]


def carry_out(chosen: Experiment, scale: Scale, seed: int, stands: Stands) -> Run:
    """One run; whatever it started is put right, also when it fails. What the machine cannot do is said, not judged."""
    run = Run(chosen, scale, seed, stands)
    with run.cleanup:
        try:
            chosen.run(run)
        except Unable as reason:
            run.unable = str(reason)
    run.note("over")
    return run
