"""Graphs carried out in this process: parts that are held here are asked through their own queues, side by side."""

from modelyard.inference.composition.asking import Asked, Asker, PartCall, ask_queue, part_error
from modelyard.inference.composition.executor import GraphExecutor
from modelyard.inference.composition.queue import GraphQueue

__all__ = ["Asked", "Asker", "GraphExecutor", "GraphQueue", "PartCall", "ask_queue", "part_error"]
