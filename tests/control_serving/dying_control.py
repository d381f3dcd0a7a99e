"""A control plane that kills itself, without a chance to clean up, at the step that DIE_AT names.

With ARMED, only while the file of that name is there: so that it comes up, and dies of what a test then asks of it. In
a pass over the services it dies only when something was asked for since.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from modelyard.foundation.http import run
from modelyard.foundation.supervision.inside import child_arguments
from modelyard.processes.control_plane import ControlConfig, ControlPlane


def die(step: str) -> None:
    armed = os.environ.get("ARMED")
    if armed is not None and not Path(armed).exists():
        return
    if step == "change.committed":
        asked.set()
    if step == os.environ["DIE_AT"] and (asked.is_set() or not step.startswith("reconcile.")):
        os.kill(os.getpid(), signal.SIGKILL)


asked = threading.Event()
arguments = child_arguments(sys.argv[1:], title="modelyard: dying control-plane")
config = msgspec.json.decode(arguments.config.read_bytes(), type=ControlConfig)
run(ControlPlane(config, step=die).run(arguments))
