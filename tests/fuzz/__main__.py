"""Fuzz the readers of strangers' bytes.

    python -m tests.fuzz [TARGET …] [--runs N] [--seconds S] [--seed N] [--engine mutation|atheris]

TARGET is http, http2, json or binary; all of them by default. `mutation` changes sound inputs at random and needs
nothing; `atheris` is guided by coverage and has to be installed (pip install atheris). Prints one line a target with
how many inputs it took; an input that breaks a promise is printed as Python writes it and ends the run with 1.
"""

import argparse
import sys
import time
import traceback
from itertools import islice

NAMES = ("http", "http2", "json", "binary")
COVERED = ["modelyard.foundation.http", "modelyard.foundation.http2", "modelyard.foundation.strict_json"]
COVERED += ["modelyard.inference.protocol"]


def fuzz(name: str, *, runs: int, seconds: float, seed: int) -> tuple[int, bytes | None]:
    """How many inputs the target took, and the one that broke a promise."""
    from tests.fuzz.mutation import inputs
    from tests.fuzz.seeds import SEEDS, WORDS
    from tests.fuzz.targets import TARGETS, watching

    target, end = TARGETS[name](), time.monotonic() + seconds
    count = 0
    try:
        for data in islice(inputs(SEEDS[name](), WORDS[name], seed=seed), runs):
            try:
                with watching():
                    target(data)
            except Exception:  # noqa: BLE001  (whatever it is, it is what was looked for)
                traceback.print_exc()
                return count, data
            count += 1
            if count % 256 == 0 and time.monotonic() > end:
                break
    finally:
        getattr(target, "close", lambda: None)()
    return count, None


def with_atheris(name: str, *, runs: int, seconds: float, seed: int) -> None:
    """Does not come back: libFuzzer ends the process."""
    import tempfile
    from pathlib import Path

    import atheris

    with atheris.instrument_imports(include=COVERED):
        from tests.fuzz.seeds import SEEDS
        from tests.fuzz.targets import TARGETS, watching
    folder = Path(tempfile.mkdtemp(prefix="modelyard-fuzz-"))
    for index, data in enumerate(SEEDS[name]()):
        (folder / f"seed-{index}").write_bytes(data)
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        "-max_len=8192",
        "-print_final_stats=1",
        f"-max_total_time={seconds:.0f}",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], TARGETS[name]())
    with watching():
        atheris.Fuzz()


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the readers of strangers' bytes.")
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], default=[], metavar="TARGET")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs of each target")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="at most so long a target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["mutation", "atheris"], default="mutation")
    given = parser.parse_args()
    names = given.targets or NAMES
    if given.engine == "atheris":
        with_atheris(names[0], runs=given.runs, seconds=given.seconds, seed=given.seed)
    failed = 0
    for name in names:
        began = time.process_time()
        count, broken = fuzz(name, runs=given.runs, seconds=given.seconds, seed=given.seed)
        spent = time.process_time() - began
        print(f"{name:8} {count:>12,} inputs   {spent:8.1f} s of processor   seed {given.seed}", flush=True)
        if broken is not None:
            print(f"         broken by {broken!r}", flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
