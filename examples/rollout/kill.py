"""Kill a process of a platform as the kernel would when memory is out (SIGKILL), and wait until it has a successor.

python examples/rollout/kill.py yard control-plane
"""

import os
import signal
import sys
import time
from pathlib import Path

from modelyard.foundation.places import Places
from modelyard.foundation.supervision.adoption import read_left

PATIENCE_S = 120.0


def main() -> int:
    """0 when there is a successor."""
    data, name = sys.argv[1:]
    noted = Places(Path(data).resolve()).run / "children.json"
    victim = {entry.name: entry.pid for entry in read_left(noted)}[name]
    os.kill(victim, signal.SIGKILL)
    print(f"killed {name}, process {victim}", flush=True)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        successor = {entry.name: entry.pid for entry in read_left(noted)}.get(name, victim)
        if successor != victim:
            print(f"its successor is process {successor}")
            return 0
        time.sleep(0.05)
    print(f"{name} has no successor after {PATIENCE_S:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
