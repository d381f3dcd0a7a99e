"""A control plane that kills itself, without a chance to clean up, at the step of a commit that DIE_AT names."""

import os
import signal
import sys

import msgspec

from modelyard.foundation.http import run
from modelyard.foundation.supervision.inside import child_arguments
from modelyard.processes.control_plane import ControlConfig, ControlPlane


def die(step: str) -> None:
    if step == os.environ["DIE_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)


arguments = child_arguments(sys.argv[1:], title="modelyard: dying control-plane")
config = msgspec.json.decode(arguments.config.read_bytes(), type=ControlConfig)
run(ControlPlane(config, step=die).run(arguments))
