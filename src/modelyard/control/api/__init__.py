"""The control API: one application that mounts every capability, with the rules that all routes share.

A process opens `open_parts(places, artifacts=...)`, puts in the services that the capabilities' routes need,
and serves `create_app(parts)`.
"""

from modelyard.control.api.app import create_app, describe_api, end_streams, problem_answer
from modelyard.control.api.assembly import open_parts
from modelyard.control.api.problems import MEDIA_TYPE, headers_of, problem, status_of

__all__ = [
    "MEDIA_TYPE",
    "create_app",
    "describe_api",
    "end_streams",
    "headers_of",
    "open_parts",
    "problem",
    "problem_answer",
    "status_of",
]
