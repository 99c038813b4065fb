# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a call of a module costs beside Ansible's own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import Any, Dict, List

import yaml

from benchmarks.measuring import Comparison

ROOT = pathlib.Path(__file__).resolve().parent.parent


def module_calls(folder: pathlib.Path, calls: int = 10) -> Comparison:
    """One call of a module that only reads, of several in a playbook whose start does not count."""
    store = folder / "module-calls"
    store.mkdir(mode=0o700, exist_ok=True)
    started = played(folder, [])
    ours, theirs = {"backstop.postgres.pg_backup_info": {"store": str(store)}}, {"ansible.builtin.command": "true"}

    def call(task: Dict[str, Any]) -> Dict[str, float]:
        return {"call": (played(folder, [task] * calls) - started) / calls}

    return Comparison(
        "module",
        "one call of a module: `pg_backup_info` on an empty store",
        "`ansible.builtin.command: true`",
        lambda: call(ours),
        lambda: call(theirs),
        {"call": 1.5},
        "Python compiles the module's library in each call",
        own_memory=False,
    )


def played(folder: pathlib.Path, tasks: List[Dict[str, Any]]) -> float:
    """Seconds of a play with these tasks on this machine."""
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    path = folder / ("%d-calls.yml" % len(tasks))
    path.write_text(yaml.safe_dump([play]), "utf-8")
    argv = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(path)]
    collections = str(ROOT / "playbooks" / "collections")
    interpreter = {"ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_PIPELINING": "1"}
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": collections, **interpreter}
    started = time.monotonic()
    subprocess.run(argv, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - started
