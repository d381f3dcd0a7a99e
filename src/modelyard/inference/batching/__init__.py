"""Gather what is there, run once, scatter: many requests share one run of the model without waiting for each other."""

from modelyard.inference.batching.batcher import Batcher, BatchLimits, Observer
from modelyard.inference.batching.call import Call
from modelyard.inference.batching.each import EachAlone
from modelyard.inference.batching.lane import Lane
from modelyard.inference.batching.local import LocalRunner
from modelyard.inference.batching.pace import Pace
from modelyard.inference.batching.queue import Queue
from modelyard.inference.batching.runner import Done, Runner, Terms

__all__ = [
    "BatchLimits",
    "Batcher",
    "Call",
    "Done",
    "EachAlone",
    "Lane",
    "LocalRunner",
    "Observer",
    "Pace",
    "Queue",
    "Runner",
    "Terms",
]
