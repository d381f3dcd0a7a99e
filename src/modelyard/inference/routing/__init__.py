"""The routing table in effect: which backend answers for which service, loaded, split, switched and failed over."""

from modelyard.inference.routing.backends import BackendState, ServedBackend
from modelyard.inference.routing.control_link import ControlLink
from modelyard.inference.routing.measures import ACCOUNT, FAMILIES
from modelyard.inference.routing.services import Service
from modelyard.inference.routing.store import TableStore
from modelyard.inference.routing.switchboard import BoardOptions, Switchboard

__all__ = [
    "ACCOUNT",
    "FAMILIES",
    "BackendState",
    "BoardOptions",
    "ControlLink",
    "ServedBackend",
    "Service",
    "Switchboard",
    "TableStore",
]
