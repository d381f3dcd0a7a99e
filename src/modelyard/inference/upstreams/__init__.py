"""Services whose answers come from elsewhere: V2 servers behind our queue, OpenAI-compatible ones relayed."""

from modelyard.inference.upstreams.client import UpstreamClient, is_for_caller
from modelyard.inference.upstreams.openai import (
    Chat,
    StreamReader,
    TokenCounts,
    counts_of,
    read_question,
    stream_error,
    write_openai_error,
)
from modelyard.inference.upstreams.queue import UpstreamQueue
from modelyard.inference.upstreams.secrets import SecretBook
from modelyard.inference.upstreams.v2 import V2Upstream

__all__ = [
    "Chat",
    "SecretBook",
    "StreamReader",
    "TokenCounts",
    "UpstreamClient",
    "UpstreamQueue",
    "V2Upstream",
    "counts_of",
    "is_for_caller",
    "read_question",
    "stream_error",
    "write_openai_error",
]
