"""A supervised program that does as its configuration says: be ready or not, die or not, refuse or not.

Configuration (JSON): `ready` (default true), `die_after_s`, `exit_code` (default 1), `say` (a last line on stderr),
`stubborn` (ignore SIGTERM).
"""

import json
import signal
import sys
import threading

from modelyard.foundation.supervision.inside import child_arguments


def main() -> int:
    """Run until told to end."""
    arguments = child_arguments(sys.argv[1:], title="modelyard: sleeper")
    config = json.loads(arguments.config.read_text(encoding="utf-8"))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, (lambda *_: None) if config.get("stubborn") else (lambda *_: ended.set()))
    if config.get("ready", True):
        arguments.ready()
    if ended.wait(config.get("die_after_s")):
        return 0
    sys.stderr.write(config.get("say", "") + "\n")
    return int(config.get("exit_code", 1))


if __name__ == "__main__":
    sys.exit(main())
