# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible renders the scripts for Windows as the tests that read them do, and the tasks refuse a password."""

from __future__ import annotations

import json
import subprocess
import sys

import yaml
from support.collection_files import ROLES
from support.windows_templates import DEFAULTS, TEMPLATES, database, render

ITEM = database(
    name="it's 电", connection={"port": 5433, "sslmode": "require"}, passfile="C:\\pass", retention={"keep_days": 3}
)


def test_the_same_text_and_no_password(tmp_path):
    values = {"item": ITEM, "scheduled_backups_databases": [ITEM, database("b")]}
    names = ("backup-database", "register-tasks")
    sources = {name: str(TEMPLATES / "windows" / (name + ".ps1.j2")) for name in names}
    tasks = [{"ansible.builtin.template": {"src": sources[name], "dest": str(tmp_path / name)}} for name in names]
    (block,) = yaml.safe_load((ROLES / "scheduled_backups" / "tasks" / "windows.yml").read_text("utf-8"))
    (guard,) = [task for task in block["block"] if "ansible.builtin.assert" in task]
    options = ("password", "password_file", "password_credential")
    tasks.append(guard)
    tasks += [
        {
            **guard,
            "vars": {**guard["vars"], "scheduled_backups_databases": [ITEM, {**database("x"), option: "s3cr3t"}]},
            "ignore_errors": True,
        }
        for option in options
    ]
    book = tmp_path / "play.yml"
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "utf-8")
    # In the inventory, so that a task can override it.
    inventory = tmp_path / "inventory.json"
    given = {**DEFAULTS, **values, "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": None}, "vars": given}}), "utf-8")
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "-c", "local", str(book)]
    done = subprocess.run(argv, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    for name in names:
        assert (tmp_path / name).read_text("utf-8") == render(name, **values).text
    assert "x: the script for Windows reads a password from a passfile only." in done.stdout
    assert "ignored=%d " % len(options) in done.stdout and "s3cr3t" not in done.stdout
