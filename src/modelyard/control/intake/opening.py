"""Open the upload centre of a data directory: first remove what no version names, then take uploads."""

from sqlalchemy import select

from modelyard.control.intake.commit import sweep
from modelyard.control.intake.desk import UploadDesk
from modelyard.control.intake.service import IntakeParts, UploadCentre, clear_incoming
from modelyard.control.intake.values import Describe
from modelyard.control.records import METADATA, Database


def open_intake(parts: IntakeParts, *, describe: Describe) -> tuple[UploadCentre, UploadDesk, list[str]]:
    """The centre and its desk, and what was removed: uploads, packages and blobs that a crash left unnamed.

    To be called before the listener opens: what is swept here is told from what is needed by the records alone.
    """
    centre = UploadCentre(parts)
    desk = UploadDesk(centre, describe=describe)
    kept = desk.recover()
    removed = clear_incoming(parts.places, keep=kept)
    digests, blobs = _named(parts.database)
    removed += sweep(parts.places, parts.artifacts, digests=digests, blobs=blobs)
    return centre, desk, removed


def _named(database: Database) -> tuple[set[str], set[str]]:
    """Digests of all bundles and files that versions name. A deleted version names nothing any more."""
    versions, files = METADATA.tables["model_versions"], METADATA.tables["version_files"]
    with database.read() as tx:
        alive = versions.c.state != "deleted"
        digests = set(tx.scalars(select(versions.c.digest).where(alive)))
        blobs = set(tx.scalars(select(files.c.sha256).join(versions, versions.c.id == files.c.version_id).where(alive)))
    return digests, blobs
