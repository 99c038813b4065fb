#!/usr/bin/env bash
# The main job of this collection, from an empty directory, on this machine: see ./demo.sh --help. Needs python3 (3.11 or newer), git and a network.
set -eu
checkout=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
python=${PYTHON:-python3}
command -v "$python" >/dev/null || {
    echo "demo.sh: $python is missing; install Python 3.11 or newer" >&2
    exit 1
}
export PYTHONPATH=$checkout/examples:$checkout/playbooks/collections PYTHONDONTWRITEBYTECODE=1
exec "$python" -m demo.command "$@"
