"""What is measured: the cases, who takes part in each, and the ratios with their aims."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure
from benchmarks.serving.load import Sample

OURS, OFF, ECHO = "modelyard", "modelyard, all off", "bare echo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model, one encoding, so many connections. `only` names who takes part; empty means everybody."""

    name: str
    model: str
    connections: int
    binary: bool = False
    only: frozenset[str] = frozenset()


CASES: Final = (
    Case(name="S JSON, 64", model="s", connections=64),
    Case(name="S JSON, 16", model="s", connections=16, only=frozenset({OURS, "triton"})),
    Case(name="S JSON, 1", model="s", connections=1, only=frozenset({OURS, ECHO, "triton"})),
    Case(name="M JSON, 64", model="m", connections=64, only=frozenset({OURS, "triton", "fastapi", "mosec"})),
    Case(name="M binary, 64", model="m", connections=64, binary=True, only=frozenset({OURS, ECHO, "triton"})),
    Case(name="R binary, 16", model="r", connections=16, binary=True, only=frozenset({OURS, "triton"})),
)

Samples = Mapping[tuple[str, str], Sequence[Sample]]
"""Samples by case and server, one a round, in the order of the rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`OURS` against another in one case, round by round."""

    case: str
    against: str
    aim: float
    what: str = "rate"
    better: str = "more"


RATIOS: Final = (
    Ratio(case="S JSON, 64", against=ECHO, aim=0.6),
    Ratio(case="S JSON, 16", against="triton", aim=4),
    Ratio(case="S JSON, 64", against="triton", aim=4),
    Ratio(case="S JSON, 64", against="mlserver", aim=20),
    Ratio(case="S JSON, 64", against="kserve", aim=30),
    Ratio(case="S JSON, 64", against="bentoml", aim=60),
    Ratio(case="S JSON, 64", against="mosec", aim=2),
    Ratio(case="M JSON, 64", against="triton", aim=2.2),
    Ratio(case="R binary, 16", against="triton", aim=1.3),
    Ratio(case="S JSON, 1", against=ECHO, aim=1.4, what="p50", better="less"),
    Ratio(case="S JSON, 64", against="triton", aim=0.8, what="p99", better="less"),
    Ratio(case="S JSON, 64", against=OFF, aim=0.85),
)


def ratios(samples: Samples, kernel: Sequence[float], command: str) -> list[Figure]:
    """Every ratio of which both sides were measured; `kernel` is onnxruntime's µs an item of M in batches of 32."""
    found = []
    for ratio in RATIOS:
        ours, theirs = samples.get((ratio.case, OURS)), samples.get((ratio.case, ratio.against))
        if ours and theirs:
            take = _taking(ratio.what)
            values = tuple(take(a) / take(b) for a, b in zip(ours, theirs, strict=True))
            name = f"{ratio.case}: {ratio.what} ÷ {ratio.against}"
            found.append(
                Figure(name=name, values=values, unit="ratio", command=command, aim=ratio.aim, better=ratio.better)
            )
    ours, echo = samples.get(("M binary, 64", OURS)), samples.get(("M binary, 64", ECHO))
    if ours and echo and kernel:
        values = tuple(a.cpu / (k + b.cpu) for a, b, k in zip(ours, echo, kernel, strict=True))
        name = "M binary, 64: CPU ÷ (onnxruntime at 32 + bare echo)"
        found.append(Figure(name=name, values=values, unit="ratio", command=command, aim=1.3))
    return found


def _taking(what: str) -> Callable[[Sample], float]:
    return {"rate": lambda s: s.rate, "p50": lambda s: s.p50, "p99": lambda s: s.p99}[what]
