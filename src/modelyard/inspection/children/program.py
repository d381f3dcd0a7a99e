"""What both child programs do: raise the walls, read the request, work, answer with events.

The order is the promise: everything that runs before the walls stand is our own code and our libraries' imports;
everything that reads the upload runs after. Whatever happens, the last event is `done` or `refusal`, or the process is
dead and the parent says why.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import AuditTimeout, ProbeFailed, UploadRefused
from modelyard.domain.report import Check, Outcome
from modelyard.foundation.documents import to_plain
from modelyard.inspection.children import audit_hook, walls

REPORT_WORDS = ("bad_alloc", "failed to allocate", "cannot allocate memory", "unable to allocate")


class Channel:
    """Events to the parent: one JSON object a line on a descriptor that nothing else holds."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, kind: str, value: object) -> None:
        """One event. Written whole, whatever the size."""
        line = json.dumps({kind: value}, separators=(",", ":"), default=str).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]

    def check(self, check: Check) -> None:
        """A check that has ended."""
        self.send("check", to_plain(check))

    def refuse(self, error: UploadRefused) -> None:
        """The last event of a refused upload."""
        self.send("refusal", {"code": error.code, "title": error.title, "detail": error.detail, "hint": error.hint})

    def done(self, result: Mapping[str, object]) -> None:
        """The last event of work that succeeded."""
        self.send("done", dict(result))


@dataclass(frozen=True, slots=True)
class Request:
    """What the parent asked for: `body` is the program's own part, in plain JSON values."""

    body: Mapping[str, Any]
    read: tuple[Path, ...]
    write: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """One child program: `preload` imports what its libraries need, `work` does the job behind the walls."""

    name: str
    preload: Callable[[str], None]
    work: Callable[[Request, Channel], None]

    def main(self, arguments: list[str]) -> int:
        """`arguments`: the descriptor for events, and what to import before the request is there."""
        channel = Channel(int(arguments[0]))
        os.set_inheritable(int(arguments[0]), False)  # noqa: FBT003  (its only signature)
        outer = walls.enter_namespaces()
        self.preload(arguments[1] if len(arguments) > 1 else "")
        document = json.loads(sys.stdin.buffer.read() or b"{}")
        if not document:
            return 0
        request = Request(
            body=document["job"],
            read=tuple(Path(item) for item in document["read"]),
            write=tuple(Path(item) for item in document["write"]),
        )
        try:
            self.preload(document.get("imports", ""))
            self._raise_walls(document, request, channel, outer)
            self.work(request, channel)
        except UploadRefused as error:
            channel.refuse(error)
        except MemoryError as error:
            channel.refuse(_too_large(error))
        except Exception as error:  # noqa: BLE001  (the edge of the program: every library error becomes a refusal)
            channel.refuse(_unexpected(error))
        return 0

    def _raise_walls(
        self, document: Mapping[str, Any], request: Request, channel: Channel, outer: dict[str, str]
    ) -> None:
        limits = document["limits"]
        _limit_resources(limits, namespaced=outer.get("namespaces") == "stands")
        inner = walls.close(read=request.read, write=request.write)
        audit_hook.arm(write=request.write, report=lambda what: channel.send("wall", what))
        standing = outer | inner | {"audit_hook": "stands", "limits": "stands"}
        kernel = "stands" in {inner.get("seccomp"), inner.get("landlock")}
        channel.check(
            Check(
                name="sandbox.walls",
                outcome=Outcome.PASSED if kernel or not document.get("needs_kernel_wall") else Outcome.NEEDS_REVIEW,
                summary="walls: " + ", ".join(sorted(name for name, state in standing.items() if state == "stands")),
                evidence={"child": self.name, "walls": standing, "limits": dict(limits)},
                hint="" if kernel else "run on a Linux kernel with seccomp or Landlock to have pickles approved unseen",
            )
        )


def _limit_resources(limits: Mapping[str, int], *, namespaced: bool) -> None:
    _limit(resource.RLIMIT_CPU, int(limits["cpu_s"]), grace=1)  # SIGXCPU first, which says why
    _limit(resource.RLIMIT_FSIZE, int(limits["file_bytes"]))
    _limit(resource.RLIMIT_NOFILE, int(limits["open_files"]))
    _limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, int(limits["memory_bytes"]))
        if namespaced:  # outside a namespace of our own the count is that of the whole user, and starting threads fails
            _limit(resource.RLIMIT_NPROC, int(limits["processes"]))


def _limit(which: int, value: int, *, grace: int = 0) -> None:
    _, hard = resource.getrlimit(which)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (wanted, wanted + grace if hard == resource.RLIM_INFINITY else hard))


def _too_large(error: BaseException) -> AuditTimeout:
    del error
    return AuditTimeout(
        "the model needs more memory than the audit may use",
        hint="upload a smaller model, or raise the audit's memory limit in the settings",
    )


def _unexpected(error: Exception) -> UploadRefused:
    text = f"{type(error).__name__}: {error}"
    if any(word in text.lower() for word in REPORT_WORDS):
        return _too_large(error)
    return ProbeFailed(
        f"the model's library gave up: {quote(text, limit=300)}",
        hint="try the file with the library that wrote it; if it works there, write it again with a recent version",
    )
