"""Keep child processes alive: start, watch, restart with growing pauses, stop in order, and say why something died."""

from modelyard.foundation.supervision.child import EXIT_REFUSED, Child, ChildSpec, ChildState
from modelyard.foundation.supervision.lock import DirectoryLock
from modelyard.foundation.supervision.supervisor import Supervisor

__all__ = ["EXIT_REFUSED", "Child", "ChildSpec", "ChildState", "DirectoryLock", "Supervisor"]
