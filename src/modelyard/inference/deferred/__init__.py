"""Requests that are answered later: accepted once on the disk, run when there is room, their answers kept for a while.

`Deferrals` is one server's part of it; the files are those of all servers of the machine (`spool`).
"""

from modelyard.inference.deferred.documents import Accepted, Found, Outcome, status_document
from modelyard.inference.deferred.hooks import ERROR, RESPONSE, secret_of
from modelyard.inference.deferred.kept_reply import KeptAnswer, KeptReply
from modelyard.inference.deferred.measures import FAMILIES, WEBHOOKS, DeferredMeasures
from modelyard.inference.deferred.sending import Sender
from modelyard.inference.deferred.spool import Spool, id_of_key, is_id, make_id
from modelyard.inference.deferred.work import Deferrals

__all__ = [
    "ERROR",
    "FAMILIES",
    "RESPONSE",
    "WEBHOOKS",
    "Accepted",
    "Deferrals",
    "DeferredMeasures",
    "Found",
    "KeptAnswer",
    "KeptReply",
    "Outcome",
    "Sender",
    "Spool",
    "id_of_key",
    "is_id",
    "make_id",
    "secret_of",
    "status_document",
]
