"""Where a platform keeps its things: one data directory, one name for each place in it.

The run directory holds Unix sockets, whose paths the kernel limits to about 100 bytes; when the data directory lies too
deep for that, a private directory in the system's temporary folder stands in for it, named after the data directory.
"""

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SOCKET_PATH_BYTES: Final = 100
_LONGEST_SOCKET_NAME: Final = 60


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below one data directory. Nothing is created before `create`.

    `shared` is the folder of artifacts, packages and secrets where several control planes have it in common.
    """

    data: Path
    shared: Path | None = None

    @property
    def kept(self) -> Path:
        """Where what all control planes of a platform need lies: the data directory, unless several share a folder."""
        return self.data if self.shared is None else self.shared

    @property
    def database(self) -> Path:
        """The records."""
        return self.data / "modelyard.db"

    @property
    def artifacts(self) -> Path:
        """Content-addressed files of all uploads."""
        return self.kept / "artifacts"

    @property
    def packages(self) -> Path:
        """One directory for each servable version, named by the hex digest."""
        return self.kept / "packages"

    @property
    def environments(self) -> Path:
        """Environments of own code, one directory a lock file."""
        return self.data / "environments"

    @property
    def incoming(self) -> Path:
        """Uploads that are not decided yet; swept at start."""
        return self.data / "incoming"

    @property
    def secrets(self) -> Path:
        """Pepper and sealed secrets, for the owner's eyes only."""
        return self.kept / "secrets"

    @property
    def pepper(self) -> Path:
        """The key of the key hashes."""
        return self.secrets / "pepper"

    @property
    def issuers(self) -> Path:
        """Public keys of issuers of tokens, as they were fetched last."""
        return self.data / "issuers"

    @property
    def sealing_key(self) -> Path:
        """The key that opens sealed secrets."""
        return self.secrets / "sealing.key"

    @property
    def webhook_key(self) -> Path:
        """The key that messages to webhooks are signed with."""
        return self.secrets / "webhook.key"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.data / "logs"

    @property
    def metrics(self) -> Path:
        """Mapped counters of the model servers."""
        return self.data / "metrics"

    @property
    def deferred(self) -> Path:
        """Requests that are answered later, and their answers."""
        return self.data / "deferred"

    @property
    def jobs(self) -> Path:
        """What jobs have on the disk while they are worked on, one directory a job."""
        return self.data / "jobs"

    @property
    def job_files(self) -> Path:
        """Content-addressed files that were given to jobs or came out of them."""
        return self.data / "job-files"

    @property
    def backups(self) -> Path:
        """Copies made before a migration, and those that are asked for."""
        return self.data / "backups"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.data / "supervisor.lock"

    @property
    def run(self) -> Path:
        """Sockets and process files of this boot."""
        here = self.data / "run"
        if len(os.fsencode(here)) + _LONGEST_SOCKET_NAME <= _SOCKET_PATH_BYTES:
            return here
        mark = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{mark}"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor takes orders."""
        return self.run / "supervisor.sock"

    @property
    def control_socket(self) -> Path:
        """Where the control plane serves the model servers."""
        return self.run / "control.sock"

    @property
    def workers(self) -> Path:
        """Sockets of isolated model workers."""
        return self.run / "w"

    def create(self) -> None:
        """Make every directory, all of them private to the user."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for place in (
            self.artifacts,
            self.packages,
            self.environments,
            self.incoming,
            self.secrets,
            self.logs,
            self.metrics,
            self.deferred,
            self.jobs,
            self.job_files,
            self.backups,
            self.run,
            self.workers,
        ):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)


def default_data_directory() -> Path:
    """The user's data folder for Modelyard on this system."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "modelyard"
    return Path.home() / ".local" / "share" / "modelyard"
