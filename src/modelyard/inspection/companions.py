"""Files that belong to a file that a person named: an OpenVINO graph does not stand without its constants."""

from pathlib import Path


def with_companions(path: Path) -> list[Path]:
    """`path`, and the file beside it that it cannot be read without, where there is one."""
    constants = path.with_suffix(".bin")
    return [path, constants] if path.suffix == ".xml" and constants.is_file() else [path]
