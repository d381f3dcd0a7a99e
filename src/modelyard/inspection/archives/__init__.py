"""Archives of a flat directory: `.zip`, `.tar`, `.tar.gz`, read by readers of our own with limits.

Only regular files come out, under names that we make, as streams into a private directory. One common top directory, as
`zip -r bundle.zip bundle/` and `tar cf bundle.tar bundle` write it, is taken off; any other directory is refused.
"""

from collections.abc import Sequence
from pathlib import Path

from modelyard.inspection.archives.members import Extracted, without_top_directory
from modelyard.inspection.archives.tar_file import extract_tar
from modelyard.inspection.archives.zip_file import extract_zip
from modelyard.inspection.policy import InspectionPolicy, ReceivedFile

__all__ = ["Extracted", "expand"]


def expand(archive: ReceivedFile, into: Path, policy: InspectionPolicy) -> Sequence[ReceivedFile]:
    """The members of `archive` as files in `into`, named as they are in the bundle.

    Raises:
        ArchiveInvalid: damaged, encrypted, or with bytes before, between or after its members.
        ArchiveUnsafe: a member that is not a plain flat file.
        ArchiveBomb: more members or bytes than the limits allow, or members that overlap.
    """
    into.mkdir(mode=0o700)
    extract = extract_zip if archive.name.lower().endswith(".zip") else extract_tar
    return without_top_directory(extract(archive, into, policy), policy)
