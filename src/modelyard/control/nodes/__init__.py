"""Where things run: the nodes, what each says of itself, and which server and worker runs where and why.

`Board` keeps the last report of every model server; `Roster` the nodes with their heartbeats, what people want of them,
and the placement of workers.
"""

from modelyard.control.nodes.board import Board
from modelyard.control.nodes.exchange import BoardExchange
from modelyard.control.nodes.roster import TOPIC, Node, Roster

__all__ = ["TOPIC", "Board", "BoardExchange", "Node", "Roster"]
