"""The messages of the gRPC side, built at import from descriptors that protoc compiled.

The `.proto` files beside it are the source. What is checked in is their descriptor set and not generated Python code:
that code refuses to load under another protobuf release than its own, and a client library in the same process that
registers the same names would clash with it. Here the descriptors live in a pool of their own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from modelyard.domain.errors.inference import BadBinary

_COMPILED: Final = Path(__file__).parent / "proto" / "descriptors.binpb"
_FILE: Final = 0x0A  # the tag of FileDescriptorSet.file


def _files(data: bytes) -> Iterator[bytes]:
    """The serialised files of a FileDescriptorSet, read by hand: importing descriptor_pb2 takes too long."""
    at = 0
    while at < len(data):
        if data[at] != _FILE:
            raise ValueError("descriptors.binpb is no FileDescriptorSet")
        size, shift, at = 0, 0, at + 1
        while True:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:  # noqa: PLR2004  (the last octet of a varint)
                break
        yield data[at : at + size]
        at += size


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    for file in _files(_COMPILED.read_bytes()):
        pool.AddSerializedFile(file)
    return pool


POOL: Final = _load()


def message(name: str) -> Any:  # noqa: ANN401  (a class that protobuf makes at run time)
    """The message class of a full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def parse(kind: Any, body: bytes) -> Any:  # noqa: ANN401  (as above)
    """A message of class `kind` from the wire.

    Raises:
        BadBinary: the bytes are no such message.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise BadBinary(
            f"the message is not a {kind.DESCRIPTOR.full_name}", hint="use a client made from the served .proto"
        ) from error


InferRequestMessage: Final = message("inference.ModelInferRequest")
InferResponseMessage: Final = message("inference.ModelInferResponse")
StreamResponseMessage: Final = message("inference.ModelStreamInferResponse")
