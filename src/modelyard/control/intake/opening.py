"""Open the upload centre of a data directory: first remove what no version names, then take uploads."""

from modelyard.control.catalog import stored_names
from modelyard.control.intake.commit import sweep
from modelyard.control.intake.desk import UploadDesk
from modelyard.control.intake.service import IntakeParts, UploadCentre, clear_incoming
from modelyard.control.intake.values import Describe


def open_intake(parts: IntakeParts, *, describe: Describe) -> tuple[UploadCentre, UploadDesk, list[str]]:
    """The centre and its desk, and what was removed: uploads, packages and blobs that a crash left unnamed.

    To be called before the listener opens: what is swept here is told from what is needed by the records alone.
    """
    centre = UploadCentre(parts)
    desk = UploadDesk(centre, describe=describe)
    kept = desk.recover()
    removed = clear_incoming(parts.places, keep=kept)
    if parts.places.shared is not None:  # another control plane may be about to name what it has just stored
        return centre, desk, removed
    with parts.database.read() as tx:
        names = stored_names(tx)
    removed += sweep(parts.places, parts.artifacts, digests=names.packages, blobs=names.files)
    return centre, desk, removed
