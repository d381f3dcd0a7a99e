"""Where things run: this machine, its servers and what each of them says.

`Board` keeps the last report of every model server; `node_documents` tells what this machine is and what runs on it.
"""

from modelyard.control.nodes.board import Board
from modelyard.control.nodes.machine import node_documents

__all__ = ["Board", "node_documents"]
