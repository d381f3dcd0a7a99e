"""Make the routing table out of services and keys, and publish it when it is another one than before.

A table is written in the unit of work that changed what it is made of, so there is never a service that is live in the
records and unknown to the newest table. Its revision counts up and is never used twice, also after a restart; servers
never take an older one, so it also passes what they hold when records were restored from a backup.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, select

from modelyard.control.deployments import service_routes
from modelyard.control.identity import IssuerBook, published_keys, published_quotas, published_secrets
from modelyard.control.nodes import Board
from modelyard.control.records import Database, Transaction
from modelyard.control.traffic.server_logs import log_settings
from modelyard.control.traffic.tables import routing_tables
from modelyard.domain.routing import RoutingTable, ServiceRoute
from modelyard.foundation.documents import from_json, to_json

TOPIC: Final = "table"
_KEPT: Final = 200


class Publisher:
    """Publishes routing tables.

    `packages` is the directory of all packages, `issuers` whose tokens count. `standing` is a table without services:
    what holds for all of them in this platform, as it was set up.
    """

    def __init__(
        self,
        *,
        packages: Path,
        standing: RoutingTable,
        board: Board,
        issuers: IssuerBook | None = None,
    ) -> None:
        self._board = board
        self._issuers = issuers
        self._standing = standing
        self._packages = str(packages)

    def __call__(self, tx: Transaction) -> int:
        """The revision of the table that follows from the records; a new one only when something is different."""
        newest = latest(tx)
        made = replace(
            self._standing,
            revision=0 if newest is None else newest[0],
            services=service_routes(tx, packages=self._packages),
            logging=log_settings(tx),
        )
        made = self._with_access(tx, made)
        known = self._highest_known()
        if newest is not None and to_json(made) == newest[1] and known <= newest[0]:
            return newest[0]
        made = replace(made, revision=max(made.revision, known) + 1)
        tx.execute(insert(routing_tables).values(revision=made.revision, document=to_json(made), at=tx.now))
        tx.execute(delete(routing_tables).where(routing_tables.c.revision <= made.revision - _KEPT))
        tx.wake(TOPIC)
        return made.revision

    def refresh(self, database: Database) -> None:
        """Publish what changed without us: a key made, revoked or run out, an issuer's, a secret. Cheap if none."""
        with database.read() as tx:
            newest = latest(tx)
            if newest is not None:
                present = from_json(newest[1], RoutingTable)
                if self._with_access(tx, present) == present and self._highest_known() <= present.revision:
                    return
        with database.begin() as tx:
            self(tx)

    def _with_access(self, tx: Transaction, table: RoutingTable) -> RoutingTable:
        """`table` with the keys, issuers and quotas that count now: none where nobody is asked who they are.

        And with the secrets that its services name.
        """
        secrets = published_secrets(tx, _named_secrets(table.services))
        table = replace(table, secrets=secrets, upstreams=self._standing.upstreams)
        if not self._standing.auth_required:
            return replace(table, keys=(), issuers=(), quotas=(), auth_required=False)
        issuers = () if self._issuers is None else self._issuers.current
        return replace(table, keys=published_keys(tx), issuers=issuers, quotas=published_quotas(tx), auth_required=True)

    def _highest_known(self) -> int:
        """The newest table that a server holds; newer than ours after records were restored from a backup."""
        return max((report.table_revision for report in self._board.alive()), default=0)


def _named_secrets(routes: Iterable[ServiceRoute]) -> set[tuple[str, str]]:
    """Project and name of the secrets that upstreams of these routes show."""
    found = ((route.project, backend.upstream) for route in routes for backend in route.backends)
    return {
        (project, wanted.auth.secret) for project, wanted in found if wanted is not None and wanted.auth is not None
    }


def latest(tx: Transaction) -> tuple[int, bytes] | None:
    """Revision and JSON of the table in force; None before the first."""
    query = select(routing_tables.c.revision, routing_tables.c.document)
    row = tx.execute(query.order_by(routing_tables.c.revision.desc()).limit(1)).first()
    return None if row is None else (row.revision, row.document)
