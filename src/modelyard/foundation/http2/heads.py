"""Read header blocks of one connection, and know again those that came before.

Clients send the same block for every call of a method. As long as the HPACK table stays as it is, the same bytes mean
the same fields, so one look-up in a dictionary gives the head.
"""

from typing import Final

from modelyard.foundation.http2.frames import Code, ConnectionFault
from modelyard.foundation.http2.head import CallHead, check_trailers, read_head
from modelyard.foundation.http2.hpack import Decoder, Field, HpackError
from modelyard.foundation.http2.limits import Http2Limits
from modelyard.foundation.http2.status import Status

_KNOWN_HEADS: Final = 256
_LONGEST_KNOWN: Final = 512


class Heads:
    """The decoder and what it read. `known` maps blocks to their heads; `streams` are the paths that are streams."""

    __slots__ = ("_decoder", "_streams", "known")

    def __init__(self, limits: Http2Limits, streams: frozenset[bytes]) -> None:
        self._decoder = Decoder(max_list=limits.max_metadata_bytes, max_fields=limits.max_metadata_fields)
        self._streams = streams
        self.known: dict[bytes, CallHead] = {}

    def read(self, block: bytes) -> CallHead:
        """The head that `block` says; remembered as long as the table stays as it is.

        Raises:
            ConnectionFault: the block cannot be read.
            Malformed: the fields are not valid.
        """
        fields = self._decode(block)
        if fields is None:
            return CallHead(status=Status.RESOURCE_EXHAUSTED, text="the metadata is too large")
        head = read_head(fields)
        head.streams = head.path in self._streams
        if not self._decoder.changed and len(block) <= _LONGEST_KNOWN:
            if len(self.known) >= _KNOWN_HEADS:
                self.known.clear()
            self.known[block] = head
        return head

    def check_trailers(self, block: bytes, *, of_call: bool) -> None:
        """Read a client's trailers, which keeps the table in step; nothing in them is used.

        Raises:
            ConnectionFault: the block cannot be read.
            Malformed: the fields are not valid, and the block belongs to a call that is open.
        """
        fields = self._decode(block)
        if of_call:
            check_trailers(fields or [])

    def _decode(self, block: bytes) -> list[Field] | None:
        try:
            fields = self._decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from error
        if self._decoder.changed:
            self.known.clear()
        return fields
