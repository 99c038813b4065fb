#!/usr/bin/env bash
# Installs what the tests need and runs all lanes, or those that are named. `./test.sh --help` lists the lanes.
# Needs python3 (3.11 or newer), git and a network. As root on Debian or Ubuntu, missing packages are installed;
# for an ordinary user, it lists what was not tested without them. Everything else is in .test/, which can be removed.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

venv=.test/venv
python=${PYTHON:-python3}
log=.test/install.log

if ! command -v "$python" >/dev/null || ! command -v git >/dev/null; then
    echo "test.sh needs python3 and git: install them first" >&2
    exit 1
fi

make_venv() {
    # The demo knows how to do this where Debian's python3-venv is missing.
    PYTHONPATH=examples "$python" -c '
import pathlib, sys
from demo import virtual_environment
virtual_environment.make(pathlib.Path(sys.argv[1]))' "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r tests/requirements.txt
    cp tests/requirements.txt "$venv/requirements.txt"
}

# The stamp is written last: an interrupted installation is made again.
if ! cmp -s tests/requirements.txt "$venv/requirements.txt" || ! "$venv/bin/python" -c '' 2>/dev/null; then
    mkdir -p .test
    echo "Installing the test tools into $venv (log: $log)"
    if ! make_venv >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "The test tools could not be installed" >&2
        exit 1
    fi
fi
exec "$venv/bin/python" tests/run_lanes.py "$@"
