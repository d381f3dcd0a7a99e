"""The tables of a run, as they stand in docs/benchmarks.md between its marks."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.figures import Figure, number
from benchmarks.serving.cases import CASES, Samples
from benchmarks.serving.peers.base import ROOT
from benchmarks.serving.trees import Memory

PAGE = ROOT / "docs" / "benchmarks.md"


def ratio_table(figures: Sequence[Figure]) -> str:
    """Figures that have an aim."""
    lines = ["| figure | median | spread | aim | |", "|---|---|---|---|---|"]
    for figure in figures:
        sign = "≤" if figure.better == "less" else "≥"
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}"
        spread = f"{number(min(figure.values))}…{number(max(figure.values))}" if len(figure.values) > 1 else ""
        verdict = {None: "", True: "reached", False: "**missed**"}[figure.holds]
        lines.append(f"| {figure.name} | {number(figure.median)} | {spread} | {aim} | {verdict} |")
    return "\n".join(lines)


def sample_table(samples: Samples) -> str:
    """Medians of each case and server, the rate with its spread."""
    lines = [
        "| case | server | req/s | spread | p50 ms | p99 ms | CPU µs | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        rows = [(server, each) for (name, server), each in samples.items() if name == case.name]
        for server, each in sorted(rows, key=lambda row: -statistics.median(s.rate for s in row[1])):
            rates = [sample.rate for sample in each]
            middles = [statistics.median(values) for values in zip(*((s.p50, s.p99, s.cpu) for s in each), strict=True)]
            cells = [case.name, server, number(statistics.median(rates)), f"{number(min(rates))}…{number(max(rates))}"]
            cells += [number(value) for value in middles]
            lines.append("| " + " | ".join([*cells, str(sum(s.bad for s in each))]) + " |")
    return "\n".join(lines)


def start_table(starts: Mapping[str, Sequence[float]], held: Mapping[str, Memory], versions: Mapping[str, str]) -> str:
    """Start to first correct answer, and memory of the process tree after the first answers of all models."""
    lines = ["| server | version | start s | PSS MiB | RSS MiB | processes |", "|---|---|---|---|---|---|"]
    for name, took in starts.items():
        memory = held[name]
        cells = [name, versions.get(name, ""), number(statistics.median(took)), number(memory.pss), number(memory.rss)]
        lines.append("| " + " | ".join([*cells, str(memory.processes)]) + " |")
    return "\n".join(lines)


def write_page(part: str, text: str) -> None:
    """Put `text` between the marks of a part of the page."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    page = PAGE.read_text()
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
