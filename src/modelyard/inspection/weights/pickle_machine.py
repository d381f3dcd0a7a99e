"""A pickle machine that makes nothing: it follows opcodes (pickletools' table) with stand-ins for values.

A stand-in keeps only what later opcodes may need: short texts and whole numbers, small tuples and dictionaries, names,
and "an object made by calling this name". All else is `OPAQUE`. Frames are held to what the strictest reader wants, so
that two readers cannot disagree on where a byte belongs.
"""

# ruff: noqa: D102  (the methods op_… are the opcodes that the pickletools table documents)

import pickletools
from collections.abc import Callable
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import AuditTimeout, WeightsFormat, WeightsUnsafe
from modelyard.inspection.octets import Octets
from modelyard.inspection.pickle_types import RENAMED, is_allowed
from modelyard.inspection.weights.joblib_array import array_span
from modelyard.inspection.weights.pickle_values import MARK, OPAQUE, SMALL, Fields, Global, Made

_TEXT_CHARS: Final = 256
_INT_BYTES: Final = 16
_LINE: Final = 4096
_NESTED: Final = 8
_STACK: Final = 250_000
_PROTOCOL: Final = 5
_MAX_FOREIGN: Final = 64
_ARRAY: Final = Global("numpy", "ndarray")
_TWO_LINES: Final = -100
_LENGTH_BYTES: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _argument_size(opcode: pickletools.OpcodeInfo) -> int:
    if opcode.name in {"GLOBAL", "INST"}:
        return _TWO_LINES
    return 0 if opcode.arg is None else opcode.arg.n


_OPCODES: Final = {ord(one.code): (one.name, _argument_size(one)) for one in pickletools.opcodes}


_TEXT_OPS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
_INT_OPS: Final = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4"})
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUSHED: Final[dict[str, object]] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_LIST": OPAQUE, "EMPTY_SET": OPAQUE, "MARK": MARK,
    "BINFLOAT": OPAQUE, "FLOAT": OPAQUE, "BINBYTES": OPAQUE, "BINBYTES8": OPAQUE, "SHORT_BINBYTES": OPAQUE,
    "BYTEARRAY8": OPAQUE,
}  # fmt: skip
_FORBIDDEN: Final = {
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), "the extension registry, which names things indirectly"),
    **dict.fromkeys(("PERSID", "BINPERSID"), "persistent ids, which the loading program resolves"),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), "buffers outside the file"),
}


class Machine:
    """One pass over one pickle, from `pos`. `names` and `foreign` are what it names, allowed and not."""

    def __init__(self, data: Octets, *, max_opcodes: int, pos: int = 0, nested: int = 0) -> None:
        self.data = data
        self.pos = pos
        self.names: set[str] = set()
        self.foreign: set[str] = set()
        self.opcodes = 0
        self.arrays = 0
        self._max_opcodes = max_opcodes
        self._nested = nested
        self._stack: list[object] = []
        self._memo: list[object] = []  # indices run from 0 in all that picklers write
        self._memo_apart: dict[int, object] = {}
        self._frame_end: int | None = None
        self._arg: bytes | tuple[bytes, bytes] = b""
        self._arg_size = 0
        self._arg_is_line = False

    def run(self) -> object:
        """Follow to STOP; the stand-in for what loading would give. `pos` is behind STOP then."""
        while True:
            self.opcodes += 1
            if self.opcodes > self._max_opcodes:
                raise AuditTimeout(f"the pickle has more than the {self._max_opcodes} opcodes that an audit follows")
            name = self._next_opcode()
            if name == "STOP":
                top = self._pop()
                if self._stack or (self._frame_end is not None and self.pos != self._frame_end):
                    raise WeightsFormat("the pickle ends in the middle of something")
                return top
            self._step(name)
            if len(self._stack) > _STACK:
                raise WeightsFormat(f"the pickle puts more than {_STACK} values on its stack")

    def _next_opcode(self) -> str:
        start = self.pos
        if self._frame_end is not None and start >= self._frame_end:
            self._frame_end = None
        if start >= len(self.data):
            raise WeightsFormat("the pickle is cut short")
        code = self.data[start]
        found = _OPCODES.get(code)
        if found is None:
            raise WeightsFormat(f"byte {start} is not a pickle opcode")
        name, size = found
        self.pos = start + 1
        self._read_argument(size)
        if self._frame_end is not None and self.pos > self._frame_end:
            raise WeightsFormat("an opcode reaches over the end of its frame")
        return name

    def _read_argument(self, size: int) -> None:
        """Leave the argument in `_arg`; long ones are skipped, only their length is kept."""
        self._arg_is_line = size == pickletools.UP_TO_NEWLINE
        if size >= 0:
            self._arg = self._take(size)
        elif size == pickletools.UP_TO_NEWLINE:
            self._arg = self._line()
        elif size == _TWO_LINES:
            self._arg = (self._line(), self._line())
        else:
            length = int.from_bytes(self._take(_LENGTH_BYTES[size]), "little")
            self._arg_size = length
            if length <= _TEXT_CHARS:
                self._arg = self._take(length)
            else:
                self._skip(length)
                self._arg = b""

    def _take(self, count: int) -> bytes:
        begin = self.pos
        self._skip(count)
        self._arg_size = count
        return self.data[begin : self.pos]

    def _skip(self, count: int) -> None:
        if count > len(self.data) - self.pos:
            raise WeightsFormat(
                f"byte {self.pos} of the pickle asks for {count} more, {len(self.data) - self.pos} are there"
            )
        self.pos += count

    def _line(self) -> bytes:
        """The text up to a newline; of a long one only its length is kept."""
        begin = self.pos
        end = self.data.find(b"\n", begin)
        if end < 0:
            raise WeightsFormat("a line of the pickle does not end")
        self.pos = end + 1
        self._arg_size = end - begin
        return self.data[begin:end] if end - begin <= _LINE else b""

    def _step(self, name: str) -> None:
        if name in _PUSHED:
            self._stack.append(_PUSHED[name])
        elif name in _TEXT_OPS:
            self._stack.append(self._text(name))
        elif name in _INT_OPS:
            self._stack.append(self._whole_number(signed=name not in {"BININT1", "BININT2"}))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = tuple(self._pop() for _ in range(count))[::-1]
            self._stack.append(items)
        elif name in _FORBIDDEN:
            raise WeightsUnsafe(f"the pickle uses {_FORBIDDEN[name]}")
        else:
            _ACTIONS[name](self)

    # values

    def _text(self, name: str) -> object:
        """A plain ASCII text. Others are not kept: no name needs them, and readers may decode them differently."""
        raw = self._arg
        if not isinstance(raw, bytes) or self._arg_size > _TEXT_CHARS or not raw.isascii() or b"\\" in raw:
            return OPAQUE
        if name == "STRING":
            if len(raw) < 2 or raw[:1] not in (b"'", b'"') or raw[-1:] != raw[:1]:  # noqa: PLR2004
                raise WeightsFormat("a text of the pickle has no quotes")
            raw = raw[1:-1]
        return raw.decode("ascii")

    def _whole_number(self, *, signed: bool) -> object:
        raw = self._arg
        if not isinstance(raw, bytes) or self._arg_size > _INT_BYTES:
            return OPAQUE
        return int.from_bytes(raw, "little", signed=signed)

    def _pop(self) -> object:
        if not self._stack:
            raise WeightsFormat("the pickle takes more from its stack than it put there")
        value = self._stack.pop()
        if value is MARK:
            raise WeightsFormat("the pickle uses a mark as a value")
        return value

    def _pop_to_mark(self) -> list[object]:
        stack = self._stack
        for at in range(len(stack) - 1, -1, -1):
            if stack[at] is MARK:
                items = stack[at + 1 :]
                del stack[at:]
                return items
        raise WeightsFormat("the pickle looks for a mark that is not there")

    def _container(self) -> object:
        """What items are added to: anything but a name (adding to a class would change it for everybody)."""
        top = self._pop()
        self._stack.append(top)
        if isinstance(top, Global):
            raise WeightsUnsafe(f"the pickle changes {quote(top)} itself")
        return top

    # names and objects

    def _name(self, module: object, name: object) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise WeightsUnsafe("the pickle puts a name together from parts that cannot be followed")
        found = Global(RENAMED.get(module, module), name)
        if is_allowed(module, name):
            self.names.add(str(found))
        elif len(self.foreign) < _MAX_FOREIGN:
            self.foreign.add(str(found))
        return found

    def op_global(self) -> None:
        module, name = self._arg
        if not isinstance(module, bytes) or not isinstance(name, bytes):
            raise WeightsFormat("a name of the pickle cannot be read")
        self._stack.append(self._name(module.decode("utf-8", "replace"), name.decode("utf-8", "replace")))

    def op_stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(self._name(module, name))

    def op_call(self) -> None:
        args, maker = self._pop(), self._pop()
        self._make(maker, args)

    def op_call_with_keywords(self) -> None:
        _, args, maker = self._pop(), self._pop(), self._pop()
        self._make(maker, args)

    def op_inst(self) -> None:
        self.op_global()
        maker = self._stack.pop()
        self._make(maker, tuple(self._pop_to_mark()))

    def op_obj(self) -> None:
        items = self._pop_to_mark()
        if not items:
            raise WeightsFormat("the pickle makes an object of nothing")
        self._make(items[0], tuple(items[1:]))

    def _make(self, maker: object, args: object) -> None:
        if not isinstance(maker, Global):
            raise WeightsUnsafe("the pickle calls something that is not a plain name")
        self._stack.append(Made(maker, args if isinstance(args, tuple) and len(args) <= SMALL else OPAQUE))

    def op_build(self) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, Made):
            raise WeightsUnsafe("the pickle gives a state to something that it did not make")
        if target.is_built:
            raise WeightsUnsafe("the pickle gives a state twice to one object")
        target.state, target.is_built = state, True
        if target.maker.name == "NumpyArrayWrapper":
            self._pass_array(target)
            target = Made(_ARRAY)  # joblib puts the array in the wrapper's place
        self._stack.append(target)

    def _pass_array(self, wrapper: Made) -> None:
        """Go on behind the bytes of a joblib array; an array of objects is a pickle of its own."""
        if self._frame_end is not None and self.pos != self._frame_end:
            raise WeightsFormat("an array's bytes begin inside a frame")
        self.arrays += 1
        size = array_span(wrapper, self.data, self.pos)
        if size is not None:
            self._skip(size)
            return
        if self._nested >= _NESTED:
            raise WeightsFormat("arrays of objects are nested too deep")
        inner = Machine(self.data, max_opcodes=self._max_opcodes - self.opcodes, pos=self.pos, nested=self._nested + 1)
        try:
            if isinstance(inner.run(), Global):
                raise WeightsUnsafe("an array of objects is a bare name")
        finally:
            self.names |= inner.names
            self.foreign |= inner.foreign
            self.opcodes += inner.opcodes
        self.pos = inner.pos

    # stack, containers, memo

    def op_dict(self) -> None:
        fields, items = Fields(), self._pop_to_mark()
        for key, value in zip(items[::2], items[1::2], strict=False):
            fields.add(key, value)
        self._stack.append(fields)

    def op_empty_dict(self) -> None:
        self._stack.append(Fields())

    def op_set_item(self) -> None:
        value, key = self._pop(), self._pop()
        target = self._container()
        if isinstance(target, Fields):
            target.add(key, value)

    def op_set_items(self) -> None:
        items = self._pop_to_mark()
        target = self._container()
        if isinstance(target, Fields):
            for key, value in zip(items[::2], items[1::2], strict=False):
                target.add(key, value)

    def op_append(self) -> None:
        self._pop()
        self._container()

    def op_append_all(self) -> None:
        self._pop_to_mark()
        self._container()

    def op_tuple(self) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items) if len(items) <= SMALL else OPAQUE)

    def op_to_opaque(self) -> None:
        self._pop_to_mark()
        self._stack.append(OPAQUE)

    def op_pop(self) -> None:
        if not self._stack:
            raise WeightsFormat("the pickle takes more from its stack than it put there")
        self._stack.pop()

    def op_pop_mark(self) -> None:
        self._pop_to_mark()

    def op_dup(self) -> None:
        top = self._pop()
        self._stack += (top, top)

    def op_get(self) -> None:
        index = self._memo_index()
        if index < len(self._memo):
            self._stack.append(self._memo[index])
        elif index in self._memo_apart:
            self._stack.append(self._memo_apart[index])
        else:
            raise WeightsFormat("the pickle remembers something that it never saw")

    def op_put(self) -> None:
        top = self._pop()
        self._stack.append(top)
        self._remember(self._memo_index(), top)

    def op_memoize(self) -> None:
        top = self._pop()
        self._stack.append(top)
        self._remember(len(self._memo) + len(self._memo_apart), top)

    def _remember(self, index: int, value: object) -> None:
        if index == len(self._memo) and index not in self._memo_apart:
            self._memo.append(value)
        elif index < len(self._memo):
            self._memo[index] = value
        else:
            self._memo_apart[index] = value

    def _memo_index(self) -> int:
        """BINGET and BINPUT give a number, GET and PUT a line of digits."""
        raw = self._arg
        if not isinstance(raw, bytes):
            raise WeightsFormat("a memo index cannot be read")
        if not self._arg_is_line:
            return int.from_bytes(raw, "little")
        if not raw.isdigit() or len(raw) > _INT_BYTES:
            raise WeightsFormat("a memo index is not a number")
        return int(raw)

    def op_int_line(self) -> None:
        raw = self._arg.strip().rstrip(b"L") if isinstance(self._arg, bytes) else b""
        if raw in (b"00", b"01"):
            self._stack.append(raw == b"01")
        elif raw.lstrip(b"-").isdigit() and len(raw) <= _INT_BYTES:
            self._stack.append(int(raw))
        else:
            self._stack.append(OPAQUE)

    def op_proto(self) -> None:
        if self._arg[0] > _PROTOCOL:  # type: ignore[operator]  # one byte, by the opcode table
            raise WeightsFormat(f"the pickle has the unknown protocol {self._arg[0]!r}")

    def op_frame(self) -> None:
        if self._frame_end is not None:
            raise WeightsFormat("a frame begins inside a frame")
        length = int.from_bytes(self._arg, "little") if isinstance(self._arg, bytes) else 0
        if length > len(self.data) - self.pos:
            raise WeightsFormat("a frame is longer than the file")
        self._frame_end = self.pos + length


_ACTIONS: Final[dict[str, Callable[[Machine], None]]] = {
    "PROTO": Machine.op_proto,
    "FRAME": Machine.op_frame,
    "GLOBAL": Machine.op_global,
    "STACK_GLOBAL": Machine.op_stack_global,
    "INST": Machine.op_inst,
    "OBJ": Machine.op_obj,
    "REDUCE": Machine.op_call,
    "NEWOBJ": Machine.op_call,
    "NEWOBJ_EX": Machine.op_call_with_keywords,
    "BUILD": Machine.op_build,
    "EMPTY_DICT": Machine.op_empty_dict,
    "DICT": Machine.op_dict,
    "SETITEM": Machine.op_set_item,
    "SETITEMS": Machine.op_set_items,
    "APPEND": Machine.op_append,
    "APPENDS": Machine.op_append_all,
    "ADDITEMS": Machine.op_append_all,
    "TUPLE": Machine.op_tuple,
    "LIST": Machine.op_to_opaque,
    "FROZENSET": Machine.op_to_opaque,
    "POP": Machine.op_pop,
    "POP_MARK": Machine.op_pop_mark,
    "DUP": Machine.op_dup,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.op_get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.op_put),
    "MEMOIZE": Machine.op_memoize,
    **dict.fromkeys(("INT", "LONG"), Machine.op_int_line),
}
