"""The upload centre: receive, inspect, decide, keep."""
