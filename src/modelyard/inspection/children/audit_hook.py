"""The interpreter's own wall: an audit hook (PEP 578) that ends the process on what no model may do.

Armed once, after the imports. It stands before the kernel's walls and says by name what was tried, so that a refusal
can tell its reason; it is no boundary against native code, which is what the kernel's walls are for. Imports still
work: their code comes from library folders.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

EXIT_WALL: Final = 86
_FATAL_PREFIXES: Final = (
    "subprocess.",
    "socket.",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "pty.",
    "ftplib.",
    "http.client.",
    "smtplib.",
    "urllib.",
    "webbrowser.",
    "sqlite3.",
)
_FATAL: Final = frozenset(
    {
        "os.system",
        "os.kill",
        "os.killpg",
        "os.symlink",
        "os.link",
        "os.chmod",
        "os.chown",
        "os.setxattr",
        "pickle.find_class",
        "sys.settrace",
        "sys.setprofile",
        "resource.setrlimit",
        "resource.prlimit",
        "signal.pthread_kill",
    }
)
_READING: Final = frozenset({"compile", "exec", "code.__new__", "function.__new__"})
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _State:
    """What the hook looks at; one a process, since a hook cannot be taken off."""

    armed = False
    reading = False
    write: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("<frozen ",)
    report: Callable[[str], None] = staticmethod(lambda _what: None)


def arm(*, write: Sequence[Path], report: Callable[[str], None]) -> None:
    """From now on nothing is started, connected, or written outside `write`; `report` hears what was tried."""
    _State.write = (*(f"{path.resolve()}{os.sep}" for path in write), "/dev/null")
    _State.libraries = ("<frozen ", *(f"{path}{os.sep}" for path in library_folders()))
    _State.report = staticmethod(report)
    sys.dont_write_bytecode = True  # modules that are imported later would want to be cached beside their source
    if not _State.armed:
        _State.armed = True
        sys.addaudithook(_judge)


def library_folders() -> set[str]:
    """Where modules of the interpreter and of installed libraries come from."""
    return {sys.prefix, sys.base_prefix, *(item for item in sys.path if item)}


@contextmanager
def reading() -> Iterator[None]:
    """While a stranger's object is being read: no code is compiled or run but that of library modules."""
    _State.reading = True
    try:
        yield
    finally:
        _State.reading = False


@contextmanager
def importing() -> Iterator[None]:
    """While a module that the table names is imported in the middle of reading: modules make code of their own."""
    before, _State.reading = _State.reading, False
    try:
        yield
    finally:
        _State.reading = before


def _judge(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        _judge_open(arguments)
    elif event in _READING:
        if _State.reading and not (_is_library_code(arguments) or _is_literal(event, arguments)):
            _end(event)
    elif event in _FATAL or event.startswith(_FATAL_PREFIXES):
        _end(event)


def _is_library_code(arguments: tuple[object, ...]) -> bool:
    """Whether what is compiled or run is a module of the libraries being imported, told by the file it comes from."""
    names = [getattr(item, "co_filename", item) for item in arguments]
    return any(isinstance(name, str) and name.startswith(_State.libraries) for name in names)


def _is_literal(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether text is only parsed into a syntax tree, as NumPy does with the header of an array (`ast.parse`).

    What is compiled under that name and then run is still caught: running it is an `exec` of its own.
    """
    return event == "compile" and len(arguments) > 1 and arguments[1] == "<unknown>"


def _judge_open(arguments: tuple[object, ...]) -> None:
    path, _, flags = arguments
    if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITES:
        return
    name = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes) else ""
    if not name.startswith(_State.write):
        _end("open for writing")


def _end(event: str) -> None:
    _State.report(event)
    os._exit(EXIT_WALL)
