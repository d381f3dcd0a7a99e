"""History: who did what, in an order that nobody can change unseen, and what was live at any moment.

`append(tx, actor=…, action=…, subject=…, project=…, payload=…)` writes an entry inside the unit of work that makes the
change: both are committed or neither. A sequencer seals entries into a hash chain within a second.

The contract with whoever switches traffic: when a revision of a service becomes live (the last server acknowledged the
table), append `SERVICE_REVISION_LIVE` with subject `service/<name>`, the service's project, and the payload
`{"service", "project", "revision", "model", "version", "digest"}`. When several share the traffic, append
`SERVICE_SPLIT` with `"split"`: of each its revision, model, version, digest and `"weight"` (percent). When a service
stops answering, append `SERVICE_GONE` with `{"service", "project"}`. From these alone `live_at` says what answered at
any moment.
"""

from modelyard.control.history.chain import chain_key
from modelyard.control.history.entries import SERVICE_GONE, SERVICE_REVISION_LIVE, SERVICE_SPLIT, Entry, append
from modelyard.control.history.reading import LiveAt, erase_payload, list_entries, live_at
from modelyard.control.history.sequencer import Sequencer
from modelyard.control.history.verification import Flaw, Verification, verify

ANCHOR_FILE = "history.anchors"
__all__ = [
    "ANCHOR_FILE",
    "SERVICE_GONE",
    "SERVICE_REVISION_LIVE",
    "SERVICE_SPLIT",
    "Entry",
    "Flaw",
    "LiveAt",
    "Sequencer",
    "Verification",
    "append",
    "chain_key",
    "erase_payload",
    "list_entries",
    "live_at",
    "verify",
]
