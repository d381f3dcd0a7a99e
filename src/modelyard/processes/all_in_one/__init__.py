"""`modelyard up`: the whole platform on this machine, one supervisor over its processes."""

from modelyard.processes.all_in_one.options import UpOptions
from modelyard.processes.all_in_one.platform import Standing, Watcher, up

__all__ = ["Standing", "UpOptions", "Watcher", "up"]
