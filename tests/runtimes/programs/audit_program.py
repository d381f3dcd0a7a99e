"""Audit one file where torch is installed: `python audit_program.py FILE PLACE`; prints the package's directory."""

import sys
from pathlib import Path

from modelyard.testing.audited import audited

if __name__ == "__main__":
    file = Path(sys.argv[1])
    print(audited(Path(sys.argv[2]), {file.name: file.read_bytes()}))
