"""The report of a series of runs: JSON for machines, Markdown for people."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.faults.experiment import Run

_HEAD = """# Faults

Made by `{command}`. Each experiment is a hypothesis about a real platform (`modelyard up`), a fault, and load that
arrives at a fixed rate whatever the answers do (open loop, nothing is tried twice by the client). The client's ledger
is the judge: a request has failed when its answer was not a 2xx, came after its deadline, or had other bytes than the
right ones. 0 failed of n shows a rate below 3/n with 95 % confidence.

Machine: {machine}. {note}

| experiment | what happens | runs | requests | failed | verdict |
|---|---|---|---|---|---|
"""


def as_document(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Everything, in plain values."""
    return [
        {
            "id": run.experiment.id,
            "title": run.experiment.title,
            "hypothesis": run.experiment.hypothesis,
            "injection": run.experiment.injection,
            "seed": run.seed,
            "passed": run.passed,
            "unable": run.unable,
            "checks": [asdict(check) for check in run.checks],
            "figures": run.figures,
            "events": run.events,
        }
        for run in runs
    ]


def as_json(runs: Sequence[Run]) -> str:
    """The document as text."""
    return json.dumps(as_document(runs), indent=1, ensure_ascii=False) + "\n"


def as_markdown(runs: Sequence[Run], *, command: str, note: str = "") -> str:
    """A table of verdicts, then each experiment with its figures."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.experiment.id, []).append(run)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    text = _HEAD.format(command=command, machine=machine, note=note)
    text += "".join(_row(name, each) for name, each in grouped.items())
    return text + "".join(_section(name, each) for name, each in grouped.items())


def _row(name: str, runs: Sequence[Run]) -> str:
    requests = sum(run.figures.get("requests", 0) for run in runs)
    outcomes: Mapping[str, int] = _summed(runs)
    failed = sum(count for outcome, count in outcomes.items() if outcome != "ok")
    verdict = "held" if all(run.passed for run in runs) else "**did not hold**"
    if runs[0].unable:
        verdict = f"not run: {runs[0].unable}"
    title = runs[0].experiment.title
    counts = f"{requests or '–'} | {failed if requests else '–'}"
    return f"| [{name}](#{name.lower()}) | {title} | {len(runs)} | {counts} | {verdict} |\n"


def _summed(runs: Sequence[Run]) -> dict[str, int]:
    total: dict[str, int] = {}
    for run in runs:
        for outcome, count in run.figures.get("outcomes", {}).items():
            total[outcome] = total.get(outcome, 0) + count
    return total


def _section(name: str, runs: Sequence[Run]) -> str:
    chosen = runs[0].experiment
    lines = [
        f"\n## {name}\n",
        f"{chosen.title}. Hypothesis: {chosen.hypothesis}. Injection: `{' '.join(chosen.injection.split())}`.\n",
        f"| check | limit | {' | '.join(f'seed {run.seed}' for run in runs)} |",
        f"|---|---|{'---|' * len(runs)}",
    ]
    names = list(dict.fromkeys(check.name for run in runs for check in run.checks))
    for each in names:
        found = [next((check for check in run.checks if check.name == each), None) for run in runs]
        limit = next(check.limit for check in found if check is not None)
        cells = ["–" if c is None else f"{c.value:g} {c.unit}".strip() + ("" if c.passed else " ✗") for c in found]
        lines.append(f"| {each} | {limit} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
