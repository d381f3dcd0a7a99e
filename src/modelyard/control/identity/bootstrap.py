"""The first administrator: a one-time token in a private file, traded for a key. There is no default password.

The token is 256 random bits, stored as a hash, good once and for 15 minutes. It is written only while no key
administers the platform, so a lost token costs a restart and nothing else.
"""

import hashlib
import hmac
import secrets
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, select, update

from modelyard.control.identity.journal import Journal
from modelyard.control.identity.keys import NewKey, StoredKey, has_administrator, issue_key
from modelyard.control.identity.principal import Actor
from modelyard.control.identity.tables import bootstrap_tokens
from modelyard.control.records import Database, Transaction
from modelyard.domain.access import Scope, Verb
from modelyard.domain.errors.platform import Unauthenticated
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.foundation.key_files import write_private

FILE_NAME: Final = "bootstrap.token"
_ACTOR: Final = Actor(kind="bootstrap", id="bootstrap", name="bootstrap")
_MAX_TOKEN: Final = 128


def offer_bootstrap(database: Database, *, data: Path, pepper: bytes, lifetime: timedelta) -> Path | None:
    """Write a new token when keys are asked for and nobody administers the platform yet; the file, or None.

    A token of an earlier start is void from now on.
    """
    place = data / FILE_NAME
    token = secrets.token_urlsafe(32)
    with database.begin() as tx:
        tx.execute(delete(bootstrap_tokens))
        wanted = not has_administrator(tx)
        if wanted:
            tx.execute(
                insert(bootstrap_tokens).values(
                    mac=_mac(token, pepper=pepper), created_at=tx.now, expires_at=tx.now + lifetime
                )
            )
    if not wanted:
        with suppress(FileNotFoundError):
            place.unlink()
        return None
    write_private(place, token + "\n")
    return place


def trade_token(
    tx: Transaction, token: str, *, pepper: bytes, lifetime: timedelta | None, journal: Journal
) -> tuple[StoredKey, str]:
    """An admin key for the token, which is used up with it.

    Raises:
        Unauthenticated: wrong, used or expired; which of these is not said.
    """
    found = tx.execute(
        select(bootstrap_tokens).where(bootstrap_tokens.c.mac == _mac(token[:_MAX_TOKEN], pepper=pepper))
    ).first()
    if found is None or found.used_at is not None or found.expires_at <= tx.now:
        raise Unauthenticated(
            "the bootstrap token is not valid",
            hint=f"it works once, for 15 minutes; without an administrator a restart writes a new {FILE_NAME}",
        )
    tx.execute(update(bootstrap_tokens).where(bootstrap_tokens.c.mac == found.mac).values(used_at=tx.now))
    new = NewKey(name="bootstrap", scopes=(Scope(Verb.ADMIN),), lifetime=lifetime)
    return issue_key(tx, new, project=DEFAULT_PROJECT, actor=_ACTOR, pepper=pepper, journal=journal)


def remove_token_file(data: Path) -> None:
    """Take the used token's file away."""
    with suppress(FileNotFoundError):
        (data / FILE_NAME).unlink()


def _mac(token: str, *, pepper: bytes) -> str:
    return hmac.new(pepper, b"bootstrap:" + token.encode(), hashlib.sha256).hexdigest()
