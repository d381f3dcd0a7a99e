"""From a presented key or token to a principal.

Mistyped keys cost no look-up; wrong, expired and revoked ones look the same.
"""

import logging
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Final

from sqlalchemy import select, update

from modelyard.control.identity.issuers import IssuerBook
from modelyard.control.identity.keys import key_record
from modelyard.control.identity.principal import Principal
from modelyard.control.identity.tables import keys
from modelyard.control.identity.throttle import Throttle
from modelyard.control.records import Database
from modelyard.domain.access import KeyRecord, key_id, matches
from modelyard.domain.errors.platform import StorageFull, Unauthenticated, Unavailable
from modelyard.foundation.settings import KeySettings
from modelyard.foundation.tokens import TokenRefused, looks_like_token

_MARK_EVERY: Final = timedelta(minutes=1)
_UNKNOWN: Final = "unknown"
_BY_BEARER: Final = "bearer"
_LOG: Final = logging.getLogger(__name__)


class Authenticator:
    """Checks keys against the records. `lookups` counts the look-ups, `database.clock` decides what has expired.

    `issuers` is whose tokens are accepted beside keys.
    """

    def __init__(
        self, database: Database, *, pepper: bytes, settings: KeySettings, issuers: IssuerBook | None = None
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._issuers = issuers
        self.throttle = Throttle(settings, database.clock)
        self.lookups = 0
        self._marking = threading.Lock()

    def principal(self, key: str | None, *, source: str) -> Principal:
        """Whose key this is. `source` is the address it came from. Blocks for a read of the database.

        Raises:
            Unauthenticated: no key, or one that does not work; which of these is not said.
            RateLimited: too many wrong ones from this source.
        """
        if key is None:
            raise _refused("no key was sent")
        if self._issuers is not None and self._issuers.current and looks_like_token(key):
            return self._bearer(self._issuers, key, source)
        number = key_id(key)
        if number is None:
            raise self._wrong((source, _UNKNOWN))
        pair = (source, number)
        self.throttle.check(pair)
        record = self._find(number)
        fits = matches(record, key, pepper=self._pepper, now=self._database.clock.now().timestamp())
        if record is None or not fits:
            raise self._wrong(pair if record is not None else (source, _UNKNOWN))
        self.throttle.succeeded(pair)
        self._mark_used(record.id)
        return Principal(key_id=record.id, name=record.name, scopes=record.scopes, project=record.project)

    def _bearer(self, issuers: IssuerBook, token: str, source: str) -> Principal:
        try:
            bearer = issuers.verify(token, now=self._database.clock.now().timestamp())
        except TokenRefused as error:
            _LOG.info("a token was refused: %s", error, extra={"source": source})
            raise self._wrong((source, _BY_BEARER)) from error
        return Principal(
            key_id=bearer.id, name=bearer.subject, scopes=bearer.scopes, project=bearer.project, kind="token"
        )

    def _find(self, number: str) -> KeyRecord | None:
        self.lookups += 1
        with self._database.read() as tx:
            row = tx.execute(select(keys).where(keys.c.id == number, keys.c.revoked_at.is_(None))).mappings().first()
            return None if row is None else key_record(row)

    def _wrong(self, pair: tuple[str, str]) -> Unauthenticated:
        self.throttle.check(pair)
        self.throttle.failed(pair)
        return _refused("the key does not work")

    def _mark_used(self, number: str) -> None:
        """Note the use, at most once a minute a key; a busy database is no reason to refuse."""
        if not self._marking.acquire(blocking=False):
            return
        try:
            with suppress(Unavailable, StorageFull):
                self._mark(number)
        finally:
            self._marking.release()

    def _mark(self, number: str) -> None:
        now = self._database.clock.now()
        with self._database.read() as tx:
            last = tx.scalar(select(keys.c.last_used_at).where(keys.c.id == number))
        if last is None or now - last > _MARK_EVERY:
            with self._database.begin() as tx:
                tx.execute(update(keys).where(keys.c.id == number).values(last_used_at=now))


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(
        detail, hint="send it as `Authorization: Bearer mdy_live_…`; `modelyard keys list` shows which exist"
    )
