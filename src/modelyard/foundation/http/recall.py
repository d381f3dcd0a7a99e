"""Read a head whose parts were seen before, several times quicker than `head.read_head` and no less strictly.

Most heads differ from earlier ones of the same listener in a line or two (a length, a trace id). A request line and a
Host are recalled only if the strict reader has let them in; a header line is recalled, or checked by the same
expression that the strict reader uses. As soon as anything is unusual (a line that frames, forwards, negotiates or
repeats), nothing is recalled and the strict reader decides. A head that was put together so, and has nothing in it that
differs from request to request, is kept whole for the next one. (What a head says of where it came from is not kept in
it: heads that a proxy wrote to are always read anew.)
"""

import re
from typing import Final

from modelyard.foundation.http.head import CHUNKED, FIELD_LINE, REQUEST_ID, WATCHED, Head, HeadRules, read_head
from modelyard.foundation.http.limits import RouteRule

_LINE: Final = re.compile(FIELD_LINE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_MOST: Final = 4096
_LONGEST: Final = 512
_MOST_HEADS: Final = 512
_LONGEST_HEAD: Final = 2048
_FLEETING: Final = frozenset({b"traceparent", b"tracestate", b"x-request-id", b"date"})
_ORDINARY: Final = (False, True, False, False)  # HTTP/1.1, kept alive, no expectation, no coding
_END: Final = [b"", b""]
_FRAME_LINES: Final = 3  # the request line and the two empty ends

Pair = tuple[bytes, bytes]


class HeadMemory:
    """What one listener has let in; bounded, and forgotten whole when full."""

    __slots__ = ("heads", "hosts", "lines", "targets")

    def __init__(self) -> None:
        self.heads: dict[bytes, Head] = {}
        self.lines: dict[bytes, Pair] = {}
        self.targets: dict[bytes, tuple[str, str, str, RouteRule]] = {}
        self.hosts: set[bytes] = set()


def recall_head(raw: bytes, rules: HeadRules, memory: HeadMemory) -> Head:
    """What `read_head` says of `raw`, by memory where that is sure.

    Raises:
        Refused: as `read_head`.
    """
    head = memory.heads.get(raw)
    if head is not None:
        return head
    lines = raw.split(b"\r\n")
    target = memory.targets.get(lines[0])
    limits = rules.limits
    if lines[-2:] != _END or target is None or len(raw) > limits.max_header_bytes:  # no end, or unknown
        return _read_and_learn(raw, rules, memory)
    if len(lines) - _FRAME_LINES > limits.max_headers:
        return _read_and_learn(raw, rules, memory)
    known = memory.lines
    pairs = [known.get(line) or _check_line(line, known) for line in lines[1:-2]]
    if None in pairs:
        return _read_and_learn(raw, rules, memory)
    fields: dict[bytes, bytes] = dict(pairs)  # type: ignore[arg-type]  # no None is left
    size = fields.get(b"content-length")
    length = 0 if size is None else int(size)
    method, path, query, rule = target
    if len(fields) != len(pairs) or fields.get(b"host") not in memory.hosts or length > rule.max_body_bytes:
        return _read_and_learn(raw, rules, memory)
    head = Head(
        raw, method, path, query, pairs, fields, length, rule, *_ORDINARY,  # type: ignore[arg-type]
        rules.scheme, fields.get(b"x-request-id"), method != "HEAD" and not rule.streamed,
    )  # fmt: skip
    if len(raw) <= _LONGEST_HEAD and _FLEETING.isdisjoint(fields):
        if len(memory.heads) >= _MOST_HEADS:
            memory.heads.clear()
        memory.heads[raw] = head
    return head


def _check_line(line: bytes, known: dict[bytes, Pair]) -> Pair | None:
    """The header in `line`; None when it is not valid, or one that the strict reader has to look at."""
    if not _LINE.fullmatch(line + b"\r\n"):
        return None
    name, _, value = line.partition(b":")
    name = name.lower()
    value = value.strip(b" \t")
    if b"_" in name or name.startswith(b"x-internal-"):
        return None
    if name in WATCHED and not (name == b"connection" and value.lower() == b"keep-alive"):
        return None
    if name == b"content-length" and not _DIGITS.fullmatch(value):
        return None
    if name == b"x-request-id" and not REQUEST_ID.fullmatch(value):
        return None
    pair = (name, value)
    if name not in _FLEETING and len(line) <= _LONGEST:
        if len(known) >= _MOST:
            known.clear()
        known[line] = pair
    return pair


def _read_and_learn(raw: bytes, rules: HeadRules, memory: HeadMemory) -> Head:
    head = read_head(raw, rules)
    line = raw[: raw.index(b"\r\n")]
    host = head.fields.get(b"host")
    if not head.http10 and head.length != CHUNKED and host is not None and b" /" in line and len(line) <= _LONGEST:
        if len(memory.targets) >= _MOST:
            memory.targets.clear()
        if len(memory.hosts) >= _MOST:
            memory.hosts.clear()
        memory.targets[line] = (head.method, head.path, head.query, head.rule)
        memory.hosts.add(host)
    return head
