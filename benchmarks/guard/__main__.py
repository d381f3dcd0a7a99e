"""How often the guard of a canary is wrong, and how soon it is right.

python -m benchmarks.guard                 on recorded traffic, some minutes
python -m benchmarks.guard live            on a real platform, half an hour
python -m benchmarks.guard record          record the traffic anew
"""

import os
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.figures import Figure, show, store
from benchmarks.guard import live, simulate, traffic

from modelyard.control.traffic.guard.policy import GuardPolicy

ALIKE_RUNS = 300
WORKERS = 2 * (os.cpu_count() or 1)
RUNS = 60
ALIKE_REQUESTS = 20_000
REQUESTS = 30_000
LIVE_ALIKE = 11
CHANGES = (
    simulate.Change(name="as good"),
    simulate.Change(name="slow, + 50 %", slower=1.5),
    simulate.Change(name="failing, 2 %", failing=0.02),
    simulate.Change(name="10 % turned into one label", turned=0.1),
    simulate.Change(name="10 % shifted to the next label", shifted=0.1),
    simulate.Change(name="numbers biased by a third of their spread", bias=3.3),
)


def main(arguments: list[str]) -> int:
    """Run what is asked for; 1 when a figure misses its aim."""
    match arguments:
        case ["record"]:
            with tempfile.TemporaryDirectory() as place:
                traffic.keep(traffic.record(Path(place)))
            return 0
        case ["live"]:
            return _live()
        case []:
            return _simulated()
        case _:
            print(__doc__)
            return 2


def _simulated() -> int:
    policy = GuardPolicy()
    command = "python -m benchmarks.guard"
    with ProcessPoolExecutor(WORKERS) as pool:
        wrong = sum(pool.map(_alike, range(ALIKE_RUNS)))
        _tell_alike(wrong, policy)
        jobs = {change: [pool.submit(_canary, change, 10_000 + n) for n in range(RUNS)] for change in CHANGES}
        ends = {change: [job.result() for job in found] for change, found in jobs.items()}
    figures = [
        Figure(
            name="A/A rolled back, of runs",
            values=(wrong / ALIKE_RUNS,),
            unit="share",
            command=command,
            aim=policy.level,
        )
    ]
    print(f"{'canary':<44}{'rolled back':<24}{'promoted':<10}{'n: median, 90 %':<18}time: median, 90 %")
    figures += [_row(change, found, command) for change, found in ends.items()]
    print()
    show(figures)
    print(store("guard", figures, wrong=wrong, runs=ALIKE_RUNS, interval=simulate.interval(wrong, ALIKE_RUNS)))
    return 0 if all(figure.holds is not False for figure in figures) else 1


def _alike(seed: int) -> bool:
    return simulate.alike(traffic.Recording.load(), seed, requests=ALIKE_REQUESTS, policy=GuardPolicy())


def _canary(change: simulate.Change, seed: int) -> simulate.End:
    return simulate.canary(traffic.Recording.load(), change, seed, requests=REQUESTS, policy=GuardPolicy())


def _tell_alike(wrong: int, policy: GuardPolicy) -> None:
    low, high = simulate.interval(wrong, ALIKE_RUNS)
    text = f"A/A: {wrong} of {ALIKE_RUNS} rolled back ({100 * low:.2f} … {100 * high:.2f} %)"
    print(f"{text}, level {100 * policy.level:g} %\n", flush=True)


def _row(change: simulate.Change, ends: list[simulate.End], command: str) -> Figure:
    back = sum(end.how == "rolled back" for end in ends)
    promoted = sum(end.how == "promoted" for end in ends)
    low, high = simulate.interval(back, len(ends))
    numbers = sorted(end.canary for end in ends if end.how != "undecided")
    times = sorted(end.seconds for end in ends if end.how != "undecided")
    spread = ("", "")
    if numbers:
        spread = tuple(
            f"{statistics.median(each):,.0f}, {each[min(len(each) - 1, int(0.9 * len(each)))]:,.0f}"
            for each in (numbers, times)
        )
    share = f"{back} ({100 * low:.0f} … {100 * high:.0f} %)"
    print(f"{change.name:<44}{share:<24}{promoted:<10}{spread[0]:<18}{spread[1]} s", flush=True)
    return Figure(name=f"{change.name}: rolled back", values=(back / len(ends),), unit="share", command=command)


def _live() -> int:
    with tempfile.TemporaryDirectory() as place:
        outcomes = live.run(Path(place), live.trials(LIVE_ALIKE))
    right = sum(outcome.ended == outcome.expected for outcome in outcomes)
    print(f"{right} of {len(outcomes)} ended as they should")
    return 0 if right == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
