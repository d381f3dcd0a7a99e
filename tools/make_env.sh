#!/usr/bin/env bash
# Build .venv from the lock file, with the project itself in editable form. Needs Python 3.11 and a package index.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
[ -n "$python" ] || { echo "Python 3.11 or newer is needed; say which with: make PYTHON=/path/to/python3" >&2; exit 1; }
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv
fi
if [ ! -x .venv/bin/uv ]; then
    grep -A 40 '^uv==' locks/dev.txt | awk 'NR > 1 && /^[^ ]/ { exit } { print }' > .venv/uv.txt
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
fi
.venv/bin/uv pip sync --quiet --require-hashes --python .venv/bin/python locks/dev.txt
.venv/bin/uv pip install --quiet --no-build-isolation --no-deps --python .venv/bin/python -e .
touch .venv/.ready
