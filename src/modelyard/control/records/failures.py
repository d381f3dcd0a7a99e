"""What a database's failures mean, in errors of ours that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from modelyard.domain.errors.platform import InvalidRequest, StorageFull, Unavailable

_BUSY: Final = {
    "55P03": "the records are busy",
    "40001": "another change came between",
    "40P01": "another change came between",
    "53300": "the database server takes no more connections",
    "25006": "the database server takes no writes at the moment",
}
_GONE: Final = ("08", "57")
"""Classes of SQLSTATE: connection exceptions, and operator intervention (shutdown, restart, fail-over)."""
_CUT: Final = "25P03"
"""The unit of work was idle for too long and the server ended it."""
_FULL: Final = ("53100", "53200")
_AGAIN: Final = "try again in a moment"


@contextmanager
def translated() -> Iterator[None]:
    """Say what the operator can do about a full disk, or a database that does not answer or is held by another."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("the records are busy", hint=_AGAIN) from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        _raise_sqlite(error, str(error.orig))
        if isinstance(error, DataError):
            raise InvalidRequest(
                "a value cannot be kept in the records", hint="shorten it; leave NUL characters out"
            ) from error
        if state in _FULL:
            raise StorageFull("the records cannot be written", hint="free space on the database server") from error
        if state in _BUSY:
            raise Unavailable(_BUSY[state], hint=_AGAIN) from error
        if is_lost(error):
            raise Unavailable("the records' database does not answer", hint=_AGAIN) from error
        raise


def is_lost(error: DBAPIError) -> bool:
    """Whether the connection is gone: nothing of its unit of work was kept, unless it was lost while it committed."""
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or state == _CUT or (state is not None and state.startswith(_GONE)):
        return True
    return (
        state is None
        and type(error.orig).__module__.startswith("psycopg")
        and "OperationalError" in repr(type(error.orig))
    )


def _raise_sqlite(error: DBAPIError, text: str) -> None:
    if "disk is full" in text or "disk I/O" in text:
        raise StorageFull("the records cannot be written", hint="free space in the data directory") from error
    if "database is locked" in text or "database table is locked" in text or "busy" in text:
        raise Unavailable("the records are held by another process", hint=_AGAIN) from error
