"""The routing table: built from services and keys, published whole, handed to the model servers.

`Publisher` makes it in the unit of work of a change, `TableFeed` hands it out, `InternalApp` is where servers ask.
"""

from modelyard.control.traffic.feed import TableFeed
from modelyard.control.traffic.internal import InternalApp
from modelyard.control.traffic.publisher import Publisher, latest

__all__ = ["InternalApp", "Publisher", "TableFeed", "latest"]
