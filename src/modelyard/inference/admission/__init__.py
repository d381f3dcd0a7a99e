"""Who may ask, how much, and by when: keys, scopes, rates and bounds. Refusing costs less than serving."""

from modelyard.inference.admission.allowance import FILE, RECORDS, Allowance, Allowances, Hold
from modelyard.inference.admission.keys import ANYONE, Caller, KeyRing
from modelyard.inference.admission.limits import Gate, SharedLimits, TokenBucket
from modelyard.inference.admission.pressure import Pressure, Room, read_urgency

__all__ = [
    "ANYONE",
    "FILE",
    "RECORDS",
    "Allowance",
    "Allowances",
    "Caller",
    "Gate",
    "Hold",
    "KeyRing",
    "Pressure",
    "Room",
    "SharedLimits",
    "TokenBucket",
    "read_urgency",
]
