"""Isolated workers of one backend behind one `Runner`: health, retries, hedges, breaker, another when one dies.

A request is the listener's until it is answered. What a dead worker had in hand goes to another, or waits for its
successor, up to the deadline. What is decided stands in `health`, without clock or sockets; `pool` carries it out.
"""

from modelyard.inference.routing.workers.flow import Flow
from modelyard.inference.routing.workers.pool import PoolObserver, WorkerPool
from modelyard.inference.routing.workers.refusals import WorkerDied, WorkerFailed

__all__ = ["Flow", "PoolObserver", "WorkerDied", "WorkerFailed", "WorkerPool"]
