"""What a worker tells the process of a job, once, on its standard input, and what it hears of it, line by line."""

from typing import Any

import msgspec


class Order(msgspec.Struct, kw_only=True):
    """One attempt. Paths are absolute; `inputs` are name → file or directory; `read` is what the process may read."""

    job: str
    kind: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    directory: str
    checkpoint: str
    seed: int
    attempt: int
    parent: int
    memory_bytes: int
    disk_bytes: int
    read: list[str]
    network: bool = False
    service_url: str = ""
    service_key: str = ""


class Kept(msgspec.Struct, kw_only=True):
    """A file that becomes part of the outcome."""

    name: str
    path: str


class Offered(msgspec.Struct, kw_only=True):
    """A model that becomes a version."""

    path: str
    name: str
    labels: dict[str, str] | None = None
    config: dict[str, Any] | None = None
    parent: str | None = None


class Said(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the process; exactly one field is set. `done` or `failed` is the last."""

    progress: dict[str, Any] | None = None
    keep: Kept | None = None
    candidate: Offered | None = None
    done: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None


class JobWorkerConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of one worker. `jobs` is where jobs have their directories; the others are where files are stored."""

    number: int
    control_socket: str
    jobs: str
    job_files: str
    artifacts: str
    packages: str
    memory_bytes: int
    disk_bytes: int
    log_bytes: int
    limit_s: float
    lease_s: float
    grace_s: float = 3.0

    @property
    def name(self) -> str:
        """As history calls it."""
        return f"job-worker-{self.number}"

    @property
    def mark(self) -> str:
        """A variable in the environment of everything this worker started, by which the next one finds it."""
        return f"MODELYARD_JOB_WORKER={self.control_socket}#{self.number}"
