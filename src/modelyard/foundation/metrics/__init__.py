"""Figures that outlive a process: counters and histograms in mapped files, shown as Prometheus text for a whole group.

Each process owns one file in a directory shared by its group and adds to doubles in mapped memory: no lock, no system
call. Any process of the group can show the sum of all files, and nothing falls when a process dies, for its file stays
and is taken over by the next process of the same name.
"""

from modelyard.foundation.metrics.account import Account
from modelyard.foundation.metrics.book import Book, Counter, Gauge, Histogram
from modelyard.foundation.metrics.exposition import Group, render
from modelyard.foundation.metrics.families import DURATION_BUCKETS_S, Family, Kind

__all__ = [
    "DURATION_BUCKETS_S",
    "Account",
    "Book",
    "Counter",
    "Family",
    "Gauge",
    "Group",
    "Histogram",
    "Kind",
    "render",
]
