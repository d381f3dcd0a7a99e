"""The report of a series of runs: JSON for machines, Markdown for people.

A later series replaces what it ran again and keeps the rest, so that one page holds all experiments.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.experiment import Run

Document = Mapping[str, Any]
_HEAD = """# Faults

Made by `make faults`, which runs `python -m tests.faults --report docs/faults.md`. Each experiment is a hypothesis
about a real platform (`modelyard up`), a fault, and load that arrives at a fixed rate whatever the answers do (open
loop, nothing is tried twice by the client). The client's ledger is the judge: a request has failed when its answer was
not a 2xx, came after its deadline, or had other bytes than the right ones. 0 failed of n shows a rate below 3/n with
95 % confidence. The small form of an experiment is the same fault with a few hundred requests, as `make test` runs it.

| experiment | what happens | form | runs | requests | failed | verdict |
|---|---|---|---|---|---|---|
"""


def write_report(path: Path, runs: Sequence[Run], *, note: str = "") -> None:
    """The Markdown file and the JSON beside it; experiments that were not among these runs stay as they were."""
    beside = path.with_suffix(".json")
    known: list[Document] = json.loads(beside.read_text("utf-8")) if beside.exists() else []
    again = {run.experiment.id for run in runs}
    documents = [each for each in known if each["id"] not in again] + [_document(run, note) for run in runs]
    documents.sort(key=lambda each: (each["id"], each["seed"]))
    beside.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.write_text(as_markdown(documents), encoding="utf-8")


def _document(run: Run, note: str) -> Document:
    """Everything of one run, in plain values."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {
        "id": run.experiment.id,
        "title": run.experiment.title,
        "hypothesis": run.experiment.hypothesis,
        "injection": run.experiment.injection,
        "form": "small" if run.scale.short else "full",
        "machine": machine,
        "note": note,
        "seed": run.seed,
        "passed": run.passed,
        "unable": run.unable,
        "checks": [asdict(check) for check in run.checks],
        "figures": run.figures,
        "events": run.events,
    }


def as_markdown(documents: Sequence[Document]) -> str:
    """A table of verdicts, then each experiment with its figures."""
    grouped: dict[str, list[Document]] = {}
    for each in documents:
        grouped.setdefault(each["id"], []).append(each)
    text = _HEAD + "".join(_row(name, each) for name, each in grouped.items())
    return text + "".join(_section(name, each) for name, each in grouped.items())


def _row(name: str, runs: Sequence[Document]) -> str:
    requests = sum(run["figures"].get("requests", 0) for run in runs)
    failed = sum(
        count for run in runs for outcome, count in run["figures"].get("outcomes", {}).items() if outcome != "ok"
    )
    verdict = "held" if all(run["passed"] for run in runs) else "**did not hold**"
    if runs[0]["unable"]:
        verdict = f"not run: {runs[0]['unable']}"
    counts = f"{requests or '–'} | {failed if requests else '–'}"
    shown = f"[{name}](#{name.lower()}) | {runs[0]['title']} | {runs[0]['form']} | {len(runs)}"
    return f"| {shown} | {counts} | {verdict} |\n"


def _section(name: str, runs: Sequence[Document]) -> str:
    chosen = runs[0]
    injection = " ".join(chosen["injection"].split())
    note = f" {chosen['note']}" if chosen["note"] else ""
    lines = [
        f"\n## {name}\n",
        f"{chosen['title']}. Hypothesis: {chosen['hypothesis']}. Injection: `{injection}`.\n",
        f"| check | limit | {' | '.join('seed ' + str(run['seed']) for run in runs)} |",
        f"|---|---|{'---|' * len(runs)}",
    ]
    names = list(dict.fromkeys(check["name"] for run in runs for check in run["checks"]))
    for each in names:
        found = [next((check for check in run["checks"] if check["name"] == each), None) for run in runs]
        limit = next(check["limit"] for check in found if check is not None)
        cells = ["–" if check is None else _cell(check) for check in found]
        lines.append(f"| {each} | {limit} | {' | '.join(cells)} |")
    lines.append(f"\n{chosen['machine']}.{note}")
    return "\n".join(lines) + "\n"


def _cell(check: Document) -> str:
    return f"{check['value']:g} {check['unit']}".strip() + ("" if check["passed"] else " ✗")
