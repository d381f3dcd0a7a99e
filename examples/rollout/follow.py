"""Follow what becomes of a service, line by line, until it is so: `promoted VERSION`, `rejected VERSION`, `workers N`.

python examples/rollout/follow.py digits promoted 2
"""

import sys
import time

from modelyard import Client
from modelyard.domain.errors import ModelyardError

PATIENCE_S = 240.0


def main() -> int:
    """0 when it came true, 1 when it did not in four minutes."""
    service, what, value = sys.argv[1:]
    shown, end = "", time.monotonic() + PATIENCE_S
    with Client() as client:
        while time.monotonic() < end:
            line, there = look(client, service, what, value)
            if line != shown:
                print(line, flush=True)
                shown = line
            if there:
                return 0
            time.sleep(0.2)
    print(f"{service} is not {what} {value} after {PATIENCE_S:g} s", file=sys.stderr)
    return 1


def look(client: Client, service: str, what: str, value: str) -> tuple[str, bool]:
    """One line about the service now, and whether it is as asked for."""
    try:
        if what == "workers":
            count = len(client.service(service).info.document["workers"])
            return f"{count} workers", count == int(value)
        rollout = client.rollout(service)
    except ModelyardError as error:
        return f"the control plane does not answer: {error}", False
    live, candidate = rollout["live"], rollout["candidate"]
    line = f"version {live['version']} answers"
    if candidate:
        line += f", version {candidate['version']} is a canary with {rollout['rollout']['weight']} %"
    if what == "promoted":
        return line, live["version"] == value and not candidate
    digest = client.version(live["model"], value).digest
    reason = next((each["reason"] for each in rollout["rejected"] if each["digest"] == digest), None)
    return line if reason is None else f"{line}\nrejected version {value}: {reason}", reason is not None


if __name__ == "__main__":
    sys.exit(main())
