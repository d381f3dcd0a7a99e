"""Requests of a known form, read together.

Most bodies of one caller differ in their numbers and in nothing else. A **form** is what stands around the numbers:
for JSON the text up to the opening bracket of the data and from the closing bracket on; for binary data the whole
document. A form is learned by asking the ordinary reader: a body is read once more with other numbers in it, and only
if exactly those come out as the input is it kept. From then on a body of that form needs only its numbers read, and
those of all bodies of a turn are read at once, into one array.

Nothing is refused here: a body of no known form, or whose numbers are not plainly right, is left to the ordinary
reader, and so is a whole lot if one of it is wrong. The verdict on a request never depends on its company.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.tensors import DataType
from modelyard.inference.protocol.reading import read_infer
from modelyard.inference.protocol.request import InferRequest
from modelyard.inference.protocol.signature import Input, Signature

Array = np.ndarray[Any, Any]
_MOST_FORMS: Final = 64
_MOST_SEEN: Final = 1024
_MOST_VALUES: Final = 4096
_LARGE: Final = 4096
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, struct.error, ValueError, RecursionError)


class Form:
    """What the bodies of one form have in common. `request` is what each asks, but for its `inputs`."""

    __slots__ = ("count", "plan", "request", "rows", "shape")

    def __init__(self, request: InferRequest, shape: tuple[int, ...]) -> None:
        self.request = request
        self.rows = request.rows
        self.shape = shape
        self.count = math.prod(shape)
        self.plan: object = None  # how its answers look (`together`)


class Lot:
    """Bodies of one form: which of a sequence they are (`picked`), and their data."""

    __slots__ = ("data", "form", "inputs", "picked")

    def __init__(self, form: Form) -> None:
        self.form = form
        self.picked: list[int] = []
        self.data: list[bytes | memoryview] = []
        self.inputs: Array | None = None


class Forms:
    """The forms that one model's callers use. Belongs to one thread."""

    def __init__(self, signature: Signature, one: Input) -> None:
        self._signature = signature
        self._one = one
        self._known: dict[bytes, Form | None] = {}  # None: tried, and not to be read together
        self._seen: set[int] = set()

    def read(self, bodies: Sequence[bytes], json_size: int | None) -> tuple[list[Lot], list[int]]:
        """Lots of bodies whose numbers are read, and the numbers of the bodies that have to be read by themselves.

        `json_size` is the Inference-Header-Content-Length of all of them; None for JSON bodies.
        """
        lots, rest = self._sort_json(bodies) if json_size is None else self._sort_binary(bodies, json_size)
        good: list[Lot] = []
        for lot in lots:
            lot.inputs = self._numbers(lot, binary=json_size is not None)
            if lot.inputs is None:
                rest += lot.picked
            else:
                good.append(lot)
        return good, rest

    def learn(self, body: bytes, json_size: int | None) -> None:
        """Take the form of a good request up, when it comes a second time."""
        if json_size is None:
            start, end = _data_of(body)
            key = body[:start] + body[end:]
        else:
            key = body[:json_size]
        mark = hash(key)
        if key in self._known or mark not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._known) >= _MOST_FORMS:
            self._known.clear()
        self._known[key] = self._json_form(body) if json_size is None else self._binary_form(body, json_size)

    def _sort_json(self, bodies: Sequence[bytes]) -> tuple[list[Lot], list[int]]:
        known = self._known
        lots: dict[Form, Lot] = {}
        rest: list[int] = []
        form = lot = None
        for index, body in enumerate(bodies):
            start = body.find(b"[", body.find(b'"data"')) + 1
            if body.startswith(b"[", start):
                start += 1
            end = body.find(b"]", start)
            found = known.get(body[:start] + body[end:])
            text = body[start:end]
            if found is None or text.count(b",") + 1 != found.count:
                rest.append(index)
                continue
            if found is not form or lot is None:
                form = found
                lot = lots.get(form) or lots.setdefault(form, Lot(form))
            lot.picked.append(index)
            lot.data.append(text)
        return list(lots.values()), rest

    def _sort_binary(self, bodies: Sequence[bytes], json_size: int) -> tuple[list[Lot], list[int]]:
        known, item = self._known, self._one.dtype.itemsize
        lots: dict[Form, Lot] = {}
        rest: list[int] = []
        for index, body in enumerate(bodies):
            form = known.get(body[:json_size])
            size = len(body) - json_size
            if form is None or size != form.count * item:
                rest.append(index)
                continue
            lot = lots.get(form) or lots.setdefault(form, Lot(form))
            lot.picked.append(index)
            lot.data.append(body[json_size:] if size < _LARGE else memoryview(body)[json_size:])
        return list(lots.values()), rest

    def _numbers(self, lot: Lot, *, binary: bool) -> Array | None:
        """The numbers of a lot as one array; None when one of them is not plainly right."""
        one, form = self._one, lot.form
        bodies = len(lot.data)
        shape = (bodies * form.rows, *form.shape[1:])
        if binary:
            array: Array = np.ndarray(shape, one.dtype, b"".join(lot.data))
        else:
            try:
                values = one.flat.decode(b"[%b]" % b",".join(lot.data))
                if len(values) != bodies * form.count:
                    return None
                array = one.pack(values, shape)
            except _UNREADABLE:
                return None
            if not one.is_finite or one.kind is not DataType.FP64:
                return array  # JSON has no infinity, and packing refuses what would become one
        return array if not one.is_finite or np.isfinite(array).all() else None

    def _json_form(self, body: bytes) -> Form | None:
        start, end = _data_of(body)
        count = body.count(b",", start, end) + 1
        if not start < end or count > _MOST_VALUES:
            return None
        probe = [value % 2 for value in range(1, count + 1)]
        text = b",".join(b"%d" % value for value in probe)
        return self._tried(body[:start] + text + body[end:], None, probe)

    def _binary_form(self, body: bytes, json_size: int) -> Form | None:
        one = self._one
        if one.allows_nan or one.kind is DataType.BOOL:
            return None
        count = (len(body) - json_size) // one.dtype.itemsize
        probe: Array = (np.arange(1, count + 1) % 2).astype(one.dtype)
        return self._tried(body[:json_size] + probe.tobytes(), json_size, probe.tolist())

    def _tried(self, body: bytes, json_size: int | None, probe: list[Any]) -> Form | None:
        """The form of `body`, if just `probe` comes out of it and it asks for nothing that needs a look of its own."""
        try:
            request = read_infer(body, json_size=json_size, signature=self._signature)
        except ModelyardError:
            return None
        array = request.inputs[self._one.name]
        plain = request.id is None and not request.priority and not request.timeout_us
        classes = any(wanted.classes for wanted in request.wanted or ())
        if not plain or classes or not array.size or array.ravel().tolist() != probe:
            return None
        form = Form(request, array.shape)
        request.inputs = {}
        return form


def forms_of(signature: Signature) -> Forms | None:
    """Where requests for this model may be read together: one input of plain numbers, of which only the rows vary."""
    one = signature.single
    if one is None or not one.is_plain or not signature.batched or signature.varies:
        return None
    return Forms(signature, one)


def _data_of(body: bytes) -> tuple[int, int]:
    """Where the first list behind the first `"data"` begins, after its bracket (or two), and where it is closed."""
    start = body.find(b"[", body.find(b'"data"')) + 1
    if body.startswith(b"[", start):
        start += 1
    return start, body.find(b"]", start)
