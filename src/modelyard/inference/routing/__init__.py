"""The routing table in effect: which backend answers for which service, loaded, split, switched and failed over."""

from modelyard.inference.routing.backends import BackendState, ServedBackend
from modelyard.inference.routing.changes import Changes, TableFile, ThroughControlPlane
from modelyard.inference.routing.control_link import ControlLink
from modelyard.inference.routing.measures import FAMILIES, TABLE_REVISION
from modelyard.inference.routing.services import Entry, Service
from modelyard.inference.routing.store import TableStore
from modelyard.inference.routing.switchboard import BoardOptions, Switchboard
from modelyard.inference.routing.table_checks import read_table
from modelyard.inference.routing.workers import Flow

__all__ = [
    "FAMILIES",
    "TABLE_REVISION",
    "BackendState",
    "BoardOptions",
    "Changes",
    "ControlLink",
    "Entry",
    "Flow",
    "ServedBackend",
    "Service",
    "Switchboard",
    "TableFile",
    "TableStore",
    "ThroughControlPlane",
    "read_table",
]
