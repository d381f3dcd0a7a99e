"""`make bench`: the figures that every change should look at, in a few minutes.

    python -m benchmarks.short [--only start,footprint,upload,serving]

Prints a table, stores it under benchmarks/results/, and ends with 0 also where an aim is missed: a timing is no test.
"""

import argparse
from collections.abc import Callable, Mapping

from benchmarks.figures import Figure, show, store
from benchmarks.short import footprint, serving, start, upload

PARTS: Mapping[str, Callable[[], list[Figure]]] = {
    "start": start.measure,
    "footprint": footprint.measure,
    "upload": upload.measure,
    "serving": serving.measure,
}


def main() -> None:
    """Measure, show, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    figures: list[Figure] = []
    for name in parser.parse_args().only.split(","):
        print(f"measuring {name} …", flush=True)
        figures += PARTS[name]()
    print()
    show(figures)
    print(f"\nstored as {store('short', figures)}")


if __name__ == "__main__":
    main()
