"""What an inspection may cost and what it accepts: every limit in one place, with its unit.

The defaults are those of the documentation (`docs/reference/bundle.md`). An operator may lower or raise them; nothing
that an upload holds can.
"""

from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """One file as it arrived: the client's `name`, where its bytes lie, their number and their SHA-256 in hex."""

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key (PEM, EC P-256) whose model signatures count, under the name that reports show."""

    name: str
    pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionPolicy:
    """Limits of one inspection.

    `consent` says that the operator takes the outcome `needs_review` on their own responsibility (`serve --trust`); the
    verdict stays what it is. `trusted_keys` verify signatures, `require_signature` refuses a bundle without one.
    """

    consent: bool = False
    trusted_keys: tuple[TrustedKey, ...] = ()
    require_signature: bool = False

    bundle_bytes: int = 4 * GIB
    files: int = 64
    file_name_chars: int = 128
    config_bytes: int = 256 * KIB
    labels_bytes: int = 4 * MIB
    text_bytes: int = 4 * MIB
    code_bytes: int = 256 * KIB
    sample_bytes: int = 64 * MIB
    labels: int = 100_000
    label_chars: int = 256
    json_depth: int = 32
    json_int_digits: int = 19

    archive_members: int = 256
    archive_ratio: int = 100
    safetensors_header_bytes: int = 16 * MIB
    tensors: int = 20_000
    rank: int = 8
    onnx_nodes: int = 200_000
    protobuf_depth: int = 64
    element_count: int = 1 << 33
    pickle_opcodes: int = 3_000_000
    pickle_expanded_bytes: int = 2 * GIB
    text_model_bytes: int = 512 * MIB

    audit_cpu_s: int = 60
    audit_wall_s: int = 60
    audit_memory_bytes: int = 2 * GIB
    audit_memory_max_bytes: int = 16 * GIB
    audit_file_bytes: int = 8 * GIB
    audit_open_files: int = 256
    audit_processes: int = 64
