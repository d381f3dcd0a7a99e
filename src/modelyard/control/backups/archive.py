"""What a backup holds: the names of its members, in their order, and the summary that comes first.

`about.json` (a `Summary`), `records.db`, `anchors` (the heads of the history's chain), `secrets/NAME`,
`artifacts/SHA256`, `job-files/SHA256`, `packages/HEX/NAME`, in a sealed tar archive (`foundation/sealed_tar.py`).
"""

import re
from dataclasses import dataclass
from typing import Final

SUFFIX: Final = ".modelyard"
FORMAT: Final = 1
ABOUT, RECORDS, ANCHORS = "about.json", "records.db", "anchors"
SECRETS, ARTIFACTS, PACKAGES, JOB_FILES = "secrets", "artifacts", "packages", "job-files"
_PART: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
MEMBERS: Final = re.compile(
    rf"{re.escape(ABOUT)}|{re.escape(RECORDS)}|{ANCHORS}|{SECRETS}/{_PART}|({ARTIFACTS}|{JOB_FILES})/[0-9a-f]{{64}}"
    rf"|{PACKAGES}/[0-9a-f]{{64}}(/{_PART})+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a backup holds and where it comes from. `schema` are the heads of the records' migrations."""

    id: str
    made_at: str
    made_by: str
    modelyard: str
    schema: tuple[str, ...]
    models: int
    versions: int
    services: int
    history: int
    format: int = FORMAT
