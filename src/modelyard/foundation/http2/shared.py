"""What all HTTP/2 connections of one listener share."""

from dataclasses import dataclass

from modelyard.foundation.http.edge import Edge
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.outflow import Turns


@dataclass(frozen=True, slots=True)
class Shared:
    """The clock and counters, the limits, and the one flush a turn."""

    edge: Edge
    limits: Http2Limits
    turns: Turns
