"""What onnxruntime alone takes for one item of M, in batches of 32: printed in microseconds of processor time.

python -m benchmarks.serving.kernel MODELS_DIRECTORY
"""

import sys
import time
from pathlib import Path

from benchmarks.serving.models import MODELS, session

_SECONDS, _BATCH = 0.5, 32


def main() -> None:
    """Run for half a second."""
    model = MODELS["m"]
    rows = model.rows(_BATCH)
    opened = session(Path(sys.argv[1]), model)
    for _ in range(20):
        opened.run(None, {"x": rows})
    began, items = time.process_time(), 0
    while (spent := time.process_time() - began) < _SECONDS:
        opened.run(None, {"x": rows})
        items += _BATCH
    print(spent / items * 1e6)


if __name__ == "__main__":
    main()
