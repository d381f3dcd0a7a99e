#!/usr/bin/env bash
# Rewrite the lock files from pyproject.toml. Run after a dependency changed; pass --upgrade to take newer releases.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url
         --no-header --no-annotate --quiet "$@" pyproject.toml)
"${compile[@]}" -o locks/runtime.txt > /dev/null
"${compile[@]}" --group dev -c locks/runtime.txt -o locks/dev.txt > /dev/null
# the public clients that tests run live in an environment of their own
.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
    --no-annotate --quiet "$@" tests/public_clients/clients.in -o locks/clients.txt > /dev/null
