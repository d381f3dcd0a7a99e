"""`make bench`: the figures that every change should look at, in a few minutes.

    python -m benchmarks.short [--only start,footprint,upload,serving] [--write]

Prints a table, stores it under benchmarks/results/, and ends with 0 also where an aim is missed: a timing is no test.
`--write` puts the table into docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Callable, Mapping

from benchmarks.figures import Figure, show, store
from benchmarks.serving.pages import ratio_table, write_page
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
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    figures: list[Figure] = []
    for name in given.only.split(","):
        print(f"measuring {name} …", flush=True)
        figures += PARTS[name]()
    print()
    show(figures)
    print(f"\nstored as {store('short', figures)}")
    if given.write:
        day = time.strftime("%Y-%m-%d", time.gmtime())
        write_page("short", f"Measured on {day} with `make bench`.\n\n{ratio_table(figures)}")


if __name__ == "__main__":
    main()
