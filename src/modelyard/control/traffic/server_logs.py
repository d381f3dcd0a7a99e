"""Which lines model servers log: one setting for all of them, published with the routing table."""

from typing import Final

from sqlalchemy import delete, insert, select

from modelyard.control.deployments import Publish
from modelyard.control.history import append
from modelyard.control.identity import Principal, require_everywhere
from modelyard.control.records import Database, Transaction
from modelyard.control.traffic.tables import serving_settings
from modelyard.domain.access import Verb
from modelyard.domain.routing import LogSettings
from modelyard.foundation.documents import from_plain, to_plain

_NAME: Final = "logging"


def log_settings(tx: Transaction) -> LogSettings | None:
    """What is set; None when each server keeps its own level."""
    document = tx.scalar(select(serving_settings.c.document).where(serving_settings.c.name == _NAME))
    return None if document is None else from_plain(document, LogSettings)


def change_log_settings(database: Database, publish: Publish, who: Principal, wish: LogSettings) -> int:
    """Set what model servers log; gives the table that says so. The change and its history are one transaction.

    Raises:
        Forbidden: the scope deploy does not cover everything.
    """
    require_everywhere(who, Verb.DEPLOY)
    with database.begin() as tx:
        if log_settings(tx) != wish:
            tx.execute(delete(serving_settings).where(serving_settings.c.name == _NAME))
            tx.execute(insert(serving_settings).values(name=_NAME, document=to_plain(wish), at=tx.now))
            append(
                tx,
                actor=who.actor,
                action="logging.changed",
                subject="platform/model-servers",
                project=None,
                payload=to_plain(wish),
            )
        return publish(tx)
