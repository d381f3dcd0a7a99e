"""Read `multipart/form-data` as a stream: bytes go in as they arrive, files are on the disk when the last one is in.

RFC 7578 over RFC 2046. Nothing is spooled or kept: the memory in use is one chunk and one part's headers. Every part
must be called `files` and carry a file name, which is passed on exactly as it came: judging names is the
inspection's work.
"""

from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from modelyard.control.intake.received import FileWriter, ReceivedUpload
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.edge import UnsupportedMediaType
from modelyard.domain.errors.uploads import MultipartInvalid, NameInvalid

_FILES: Final = "files"
_BOUNDARY_BYTES: Final = 70
_HINT: Final = "send every file in a part named files, as `curl -F files=@model.onnx` does"


def boundary_of(content_type: str | None) -> bytes:
    """The boundary that a Content-Type names.

    Raises:
        UnsupportedMediaType: it is absent, or not multipart/form-data.
        MultipartInvalid: it has no boundary, or one that RFC 2046 section 5.1.1 does not allow.
    """
    kind, _, rest = (content_type or "").partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("an upload is sent as multipart/form-data", hint=_HINT)
    boundary = _parameters(rest).get("boundary", "")
    if not boundary or len(boundary) > _BOUNDARY_BYTES or not boundary.isascii() or not boundary.isprintable():
        raise MultipartInvalid("the Content-Type names no usable boundary", hint=_HINT)
    return boundary.encode()


class MultipartReceiver:
    """Takes the body of one request; `feed` every chunk, then `finish`. Blocks on the disk: not for an event loop."""

    def __init__(self, boundary: bytes, upload: ReceivedUpload) -> None:
        self._upload = upload
        self._limits = upload.limits
        self._ended = False
        self._failure: Exception | None = None
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._writer: FileWriter | None = None
        self._unknown = ""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_begin": self._header_begin,
                "on_header_field": lambda data, start, end: self._header_data(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._header_data(1, data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
            max_header_count=self._limits.part_headers,
            max_header_size=self._limits.part_header_bytes,
        )

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. Raises an `UploadRefused`, `BodyTooLarge`, `QuotaExceeded` or `StorageFull`."""
        if self._ended:
            return  # RFC 2046 5.1.1: what follows the last boundary is an epilogue without meaning
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MultipartInvalid("the body breaks the multipart syntax", hint=_HINT) from error

    def finish(self) -> None:
        """The body is complete: check that the message is, too."""
        if not self._ended:
            raise MultipartInvalid("the multipart body ends before its last boundary", hint=_HINT)
        if self._unknown:
            raise MultipartInvalid(f"a part is named {self._unknown}, not files", hint=_HINT)
        if not self._upload.files:
            raise MultipartInvalid("the upload has no file", hint=_HINT)

    def close(self) -> None:
        """Let go of an unfinished file. Idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _part_begin(self) -> None:
        self._upload.count_part()
        self._headers = {}
        self._header_bytes = 0

    def _header_begin(self) -> None:
        self._header = (bytearray(), bytearray())

    def _header_data(self, which: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > self._limits.part_header_bytes:
            raise MultipartInvalid(f"the headers of a part may have {self._limits.part_header_bytes} bytes", hint=_HINT)
        self._header[which].extend(data)

    def _header_end(self) -> None:
        name = bytes(self._header[0]).decode("ascii", "replace").lower()
        if name in self._headers:
            raise MultipartInvalid(f"a part repeats the header {quote(name)}", hint=_HINT)
        try:
            self._headers[name] = bytes(self._header[1]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise NameInvalid("a file name is not valid UTF-8", hint="use a-z, 0-9, dot, dash, underscore") from error

    def _headers_finished(self) -> None:
        if self._headers.get("content-transfer-encoding", "binary").strip().lower() not in ("binary", "8bit", "7bit"):
            raise MultipartInvalid("a part is encoded; RFC 7578 section 4.7 asks for plain bytes", hint=_HINT)
        kind, _, rest = self._headers.get("content-disposition", "").partition(";")
        values = _parameters(rest)
        if kind.strip().lower() != "form-data" or "name" not in values:
            raise MultipartInvalid("a part has no Content-Disposition: form-data with a name", hint=_HINT)
        if values["name"] != _FILES:
            self._unknown = self._unknown or quote(values["name"])  # said at the end: too many parts is said first
            return
        if "filename" not in values:
            raise MultipartInvalid("a part named files is not a file: it has no filename", hint=_HINT)
        self._writer = self._upload.begin(values["filename"])

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._upload.count_bytes(end - start)
        if self._writer is not None:
            self._writer.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        if self._writer is None:
            return
        self._upload.files.append(self._writer.finish())
        self._writer = None

    def _end(self) -> None:
        self._ended = True


def _parameters(text: str) -> dict[str, str]:
    r"""`; name="value"; …` with quoted strings; the first of two equal names wins, so that nobody reads another one.

    A backslash escapes only a quotation mark or a backslash: others are part of the value (browsers and curl differ
    here, and a name with any backslash is refused later anyway). `filename*` is not read (RFC 7578 section 4.2).
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        name, equals, _ = text[position:].partition("=")
        if not equals:
            break
        position += len(name) + 1
        value, position = _value(text, position)
        found.setdefault(name.strip(" \t;").lower(), value)
    return found


def _value(text: str, position: int) -> tuple[str, int]:
    if not text.startswith('"', position):
        end = text.find(";", position)
        end = len(text) if end < 0 else end
        return text[position:end].strip(), end + 1
    value: list[str] = []
    position += 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and text[position + 1 : position + 2] in ('"', "\\"):
            position += 1
        value.append(text[position])
        position += 1
    if position >= len(text):
        raise MultipartInvalid("a quoted value in a header does not end", hint=_HINT)
    return "".join(value), position + 1
