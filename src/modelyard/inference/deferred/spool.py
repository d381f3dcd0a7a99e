"""Accepted requests on this machine's disk. What is accepted is there after a power cut; what is answered, once.

Each server process has a directory of its own, on whose lock file it holds a lock for as long as it lives. A directory
whose lock is free belonged to a process that is gone: whoever finds it first takes it over, with all that waits in it.
Reading needs no lock: every server answers for all of them. For each request there are

    ID.request   from its acceptance to its end     ID.tries   a byte for each run that was begun
    ID.answer    from its end until it is let go    ID.hook    until its webhook was told

and in one small directory for all of them, which every owner looks at, `cancel/ID`: somebody wants it to end.

Nothing here is asynchronous; calls that change something come from one thread.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import Conflict, Unavailable
from modelyard.foundation.durable import sync
from modelyard.inference.deferred.documents import Accepted, Found, Outcome, pack, read_head, unpack

_ID: Final = re.compile(r"[0-9a-f]{32}")
_LOCK: Final = "lock"
_KEYS: Final = "keys"
_CANCEL: Final = "cancel"
_SHARED: Final = (_KEYS, _CANCEL)
_DRAFT: Final = "new-"
_BEING_ACCEPTED_S: Final = 10.0
REQUEST: Final = ".request"
ANSWER: Final = ".answer"
TRIES: Final = ".tries"
HOOK: Final = ".hook"


def make_id() -> str:
    """A new id that nobody can guess."""
    return os.urandom(16).hex()


def id_of_key(*parts: str) -> str:
    """The id that a caller's own idempotency key stands for."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


class Spool:
    """The requests of all servers below `root`, and the directories that are this process's to change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for place in (_KEYS, _CANCEL):
            (root / place).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks: dict[Path, int] = {}
        name = os.urandom(8).hex()
        self._own = root / name
        draft = root / f"{_DRAFT}{name}"  # nobody takes over a directory that has no name yet
        draft.mkdir(mode=0o700)
        self._take(draft, create=True)
        draft.rename(self._own)
        self._locks[self._own] = self._locks.pop(draft)
        sync(root)

    def close(self) -> None:
        """Give the directories up, for others or a later start of this one."""
        for fd in self._locks.values():
            os.close(fd)
        self._locks.clear()

    def accept(self, batch: Sequence[tuple[Accepted, bytes]]) -> None:
        """Write requests down; when this returns they survive a power cut. One wait for the names of all."""
        for accepted, body in batch:
            _write(self._own / (accepted.id + REQUEST), pack(accepted, body))
        sync(self._own)

    def claim_key(self, request_id: str, digest: str, *, now: float) -> Found | None:
        """The request that came with this idempotency key before; None: it is the first. `digest` is of what it asks.

        Raises:
            Conflict: the key was used for another request.
            Unavailable: another server is accepting one with this key at this moment.
        """
        path = self._root / _KEYS / request_id
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            known = path.read_text()
            if known and known != digest:
                raise Conflict(
                    "this Idempotency-Key was used for another request", hint="send a new key with a new request"
                ) from None
            found = self.find(request_id)
            if found is None and now - path.stat().st_mtime < _BEING_ACCEPTED_S:
                raise Unavailable("a request with this Idempotency-Key is being accepted", hint="try again") from None
            return found
        with os.fdopen(fd, "w") as stream:
            stream.write(digest)
        return None

    def adopt(self) -> list[tuple[Accepted, int]]:
        """Requests that wait in directories of processes that are gone, with their bytes; they are this one's now."""
        waiting: list[tuple[Accepted, int]] = []
        for directory in self._directories():
            if directory in self._locks or not self._take(directory):
                continue
            names = set(os.listdir(directory))  # noqa: PTH208  (names are all that is wanted)
            if names <= {_LOCK}:
                self._drop(directory)
                continue
            for name in sorted(names):
                if name.endswith(REQUEST):
                    found = self._waiting(directory / name)
                    if found is not None:
                        waiting.append(found)
        return sorted(waiting, key=lambda each: each[0].created_at)

    def begin(self, request_id: str) -> tuple[bytes, int]:
        """The body of a request that is to be run now, and which run of it that is, from 1.

        Raises:
            LookupError: it is not there any more.
        """
        directory = self._of(request_id)
        data = (directory / (request_id + REQUEST)).read_bytes()
        fd = os.open(directory / (request_id + TRIES), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b".")
            tries = os.fstat(fd).st_size
        finally:
            os.close(fd)
        return unpack(data, Accepted)[1], tries

    def put_back(self, request_id: str) -> None:
        """The run that was begun asked the model nothing: it does not count."""
        path = self._of(request_id) / (request_id + TRIES)
        with suppress(OSError):
            os.truncate(path, max(0, path.stat().st_size - 1))

    def finish(self, accepted: Accepted, outcome: Outcome, body: bytes, hook: bytes | None = None) -> None:
        """Keep the answer, and what is to be told to its webhook; the request ends with the same stroke."""
        directory = self._of(accepted.id)
        if hook is not None:  # first: an answer without its message would be one that nobody is told of
            _write(directory / (accepted.id + HOOK), hook)
        _write(directory / (accepted.id + ANSWER), pack(accepted, pack(outcome, body)))
        sync(directory)
        self._take_away(directory, accepted.id)

    def find(self, request_id: str) -> Found | None:
        """What is known of a request, whoever's it is; None when nothing is."""
        for directory in self._directories():
            with suppress(OSError, ValueError), (directory / (request_id + ANSWER)).open("rb") as stream:
                accepted = read_head(stream, Accepted)
                outcome = read_head(stream, Outcome)
                return Found(accepted, outcome, outcome.tries, directory)
            with suppress(OSError, ValueError), (directory / (request_id + REQUEST)).open("rb") as stream:
                return Found(read_head(stream, Accepted), None, _tries(directory, request_id), directory)
        return None

    def answer(self, found: Found) -> bytes:
        """The body of the answer.

        Raises:
            OSError: it was let go meanwhile.
        """
        with (found.directory / (found.accepted.id + ANSWER)).open("rb") as stream:
            read_head(stream, Accepted)
            read_head(stream, Outcome)
            return stream.read()

    def ask_to_cancel(self, found: Found) -> None:
        """Leave a word for whoever owns the request."""
        (self._root / _CANCEL / found.accepted.id).touch(mode=0o600)

    def cancelled(self) -> Iterator[str]:
        """Requests of this process that somebody wants to end."""
        for name in os.listdir(self._root / _CANCEL):  # noqa: PTH208  (names are all that is wanted)
            if any((directory / (name + REQUEST)).exists() for directory in self._locks):
                yield name

    def let_go(self, found: Found) -> None:
        """Forget a request that has ended."""
        self._forget(found.directory, found.accepted.id)

    def _forget(self, directory: Path, request_id: str) -> None:
        own = [directory / (request_id + ending) for ending in (HOOK, ANSWER, REQUEST, TRIES)]
        for path in (*own, self._root / _CANCEL / request_id, self._root / _KEYS / request_id):
            path.unlink(missing_ok=True)

    def expire(self, before: float) -> int:
        """Forget what ended before a moment; how many."""
        count = 0
        for directory in list(self._locks):
            for path in directory.glob(f"*{ANSWER}"):
                with suppress(OSError):
                    if path.stat().st_mtime < before:
                        self._forget(directory, path.name.removesuffix(ANSWER))
                        count += 1
        return count

    def _take_away(self, directory: Path, request_id: str) -> None:
        """The request itself goes last: as long as it is there, whoever takes over finds the rest by it."""
        of_it = (
            directory / (request_id + TRIES),
            self._root / _CANCEL / request_id,
            directory / (request_id + REQUEST),
        )
        for path in of_it:
            path.unlink(missing_ok=True)

    def _waiting(self, path: Path) -> tuple[Accepted, int] | None:
        """The request in a file and its bytes; none once it has its answer, where only the taking away was missed."""
        request_id = path.name.removesuffix(REQUEST)
        if path.with_name(request_id + ANSWER).exists():
            self._take_away(path.parent, request_id)
            return None
        try:
            with path.open("rb") as stream:
                return read_head(stream, Accepted), os.fstat(stream.fileno()).st_size
        except ValueError:  # cut off by a power cut before it was accepted: nobody was told of it
            path.unlink(missing_ok=True)
            return None

    def _directories(self) -> list[Path]:
        with os.scandir(self._root) as entries:
            names = [each.name for each in entries if each.name not in _SHARED and not each.name.startswith(_DRAFT)]
        return [self._own, *(self._root / name for name in names if name != self._own.name)]

    def _of(self, request_id: str) -> Path:
        for directory in self._locks:
            if (directory / (request_id + REQUEST)).exists():
                return directory
        raise LookupError(request_id)

    def _take(self, directory: Path, *, create: bool = False) -> bool:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            fd = os.open(directory / _LOCK, flags, 0o600)
        except OSError:  # taken away by whoever emptied it
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._locks[directory] = fd
        return True

    def _drop(self, directory: Path) -> None:
        fd = self._locks.pop(directory)
        with suppress(OSError):
            (directory / _LOCK).unlink()
            directory.rmdir()
        os.close(fd)


def is_id(text: str) -> bool:
    """Whether `text` can be the id of a request; nothing else becomes part of a path."""
    return _ID.fullmatch(text) is not None


def _tries(directory: Path, request_id: str) -> int:
    try:
        return (directory / (request_id + TRIES)).stat().st_size
    except OSError:
        return 0


def _write(path: Path, data: bytes) -> None:
    """Write a whole file that has its name only when it is on the disk."""
    partial = path.with_name(path.name + ".partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)
    partial.replace(path)
