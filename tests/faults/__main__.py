"""python -m tests.faults [IDS] [--rounds N] [--seed N] [--short] [--report FILE.md]: run experiments, report, judge."""

import argparse
import sys
import time
import traceback
from pathlib import Path

from tests.faults.experiment import FULL, REGISTRY, SHORT, Run, Stands, carry_out
from tests.faults.experiments import load_all
from tests.faults.report import write_report


def main() -> int:
    """0 when everything held."""
    load_all()
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="experiments; all without any")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, with other seeds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the small form that `make test` runs")
    parser.add_argument("--report", type=Path, help="write this Markdown file, and JSON beside it")
    parser.add_argument("--note", default="", help="a sentence for the report, such as what else the machine did")
    parser.add_argument("--list", action="store_true", help="only list them")
    given = parser.parse_args()
    unknown = [name for name in given.ids if name not in REGISTRY]
    if unknown:
        parser.error(f"no experiment {', '.join(unknown)}; there are {', '.join(sorted(REGISTRY))}")
    if given.list:
        for name, each in sorted(REGISTRY.items()):
            print(f"{name:24} {each.title}")
        return 0
    runs, broken = _run_all(given)
    held, unable = sum(run.passed for run in runs), sum(bool(run.unable) for run in runs)
    more = [f", {count} {what}" for count, what in ((unable, "not run"), (broken, "broke off")) if count]
    print(f"{held} of {len(runs)} runs held{''.join(more)}")
    return 0 if held + unable == len(runs) and not broken else 1


def _run_all(given: argparse.Namespace) -> tuple[list[Run], int]:
    runs: list[Run] = []
    broken = 0
    stands = Stands()
    try:
        for name in given.ids or sorted(REGISTRY):
            for number in range(given.rounds):
                began = time.monotonic()
                try:
                    run = carry_out(REGISTRY[name], SHORT if given.short else FULL, given.seed + number, stands)
                except Exception:
                    traceback.print_exc()
                    broken += 1
                    stands.close()
                    stands = Stands()
                    continue
                runs.append(run)
                if given.report:
                    write_report(given.report, runs, note=given.note)
                verdict = "held" if run.passed else f"not run: {run.unable}" if run.unable else "DID NOT HOLD"
                print(
                    f"{name} seed {run.seed}: {verdict} in {time.monotonic() - began:.0f} s  {run.figures}", flush=True
                )
                for line in run.failures:
                    print(f"    {line}", flush=True)
    finally:
        stands.close()
    return runs, broken


if __name__ == "__main__":
    sys.exit(main())
