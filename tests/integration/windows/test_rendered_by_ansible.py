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

ITEM = database(name="it's 电", connection={"port": 5433, "sslmode": "require"}, passfile="C:\\pass", keep_days=3)


def play(folder, tasks, **values):
    book = folder / "play.yml"
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]), "utf-8")
    (folder / "values.json").write_text(json.dumps({**DEFAULTS, **values}), "utf-8")
    argv = [
        sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local",
        "-e", "@%s" % (folder / "values.json"), str(book),
    ]
    return subprocess.run(argv, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_the_same_text(tmp_path):
    values = {"item": ITEM, "scheduled_backups_databases": [ITEM, database("b")]}
    names = ("backup-database", "register-tasks")
    sources = {name: str(TEMPLATES / "windows" / (name + ".ps1.j2")) for name in names}
    tasks = [{"ansible.builtin.template": {"src": sources[name], "dest": str(tmp_path / name)}} for name in names]
    done = play(tmp_path, tasks, **values)
    assert done.returncode == 0, done.stdout
    for name in names:
        assert (tmp_path / name).read_text("utf-8") == render(name, **values).text


def test_a_password_is_refused(tmp_path):
    (block,) = yaml.safe_load((ROLES / "scheduled_backups" / "tasks" / "windows.yml").read_text("utf-8"))
    (guard,) = [task for task in block["block"] if "ansible.builtin.assert" in task]
    good = play(tmp_path, [guard], scheduled_backups_databases=[ITEM])
    assert good.returncode == 0, good.stdout
    for option in ("password", "password_file", "password_credential"):
        bad = play(tmp_path, [guard], scheduled_backups_databases=[{**ITEM, option: "s3cr3t-" + option}])
        assert bad.returncode == 2 and "which the script for Windows cannot use" in bad.stdout
        assert "s3cr3t" not in bad.stdout
