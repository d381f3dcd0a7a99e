"""The routing table: built from services and keys, published whole, handed to the model servers.

`Publisher` makes it in the unit of work of a change, `TableFeed` hands it out, `InternalApp` is where servers ask,
`ServingChanges` what their callers may change through them.
`GuardLoop` compares canaries with what is live by what the servers counted, and moves them where it is told to.
"""

from modelyard.control.traffic.changes import ServingChanges
from modelyard.control.traffic.feed import TableFeed
from modelyard.control.traffic.guard.loop import GuardLoop
from modelyard.control.traffic.internal import InternalApp
from modelyard.control.traffic.publisher import Publisher, latest

__all__ = ["GuardLoop", "InternalApp", "Publisher", "ServingChanges", "TableFeed", "latest"]
