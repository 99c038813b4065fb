# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""If the user of the jobs cannot run them, the role scheduled_backups fails, although root could run them."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.program import build_program

USER = "nobody"
PLACES = {
    "scheduled_backups_user": USER,
    "scheduled_backups_scheduler": "cron",
    "scheduled_backups_state_directory": "{{ folder }}",
    "scheduled_backups_program": "{{ folder }}/backstop",
    "scheduled_backups_python": "{{ python }}",
    "scheduled_backups_ready": "ready %i --answer {{ folder }}/%i.ready --config-directory {{ folder }}",
    "scheduled_backups_tried": "shop",
}


@pytest.fixture
def folder():
    """A directory that the user of the jobs can enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


def installed(folder, name, python):
    """Variables of a host whose command is run by this Python."""
    place = folder / name
    place.mkdir(mode=0o755)
    program, configuration = place / "backstop", place / "shop.conf"
    program.write_bytes(build_program(str(python)))
    program.chmod(0o755)
    connection = {"host": "127.0.0.1", "port": 1, "user": "shop_owner", "database": "shop"}
    configuration.write_text(json.dumps({"connection": connection, "store": str(place / "store")}), "utf-8")
    configuration.chmod(0o600)
    account = pwd.getpwnam(USER)
    for path in (place, configuration):
        os.chown(path, account.pw_uid, account.pw_gid)
    return {"folder": str(place), "python": str(python)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the command as the user of the jobs")
def test_an_interpreter_that_only_root_can_run_or_that_has_no_driver(folder):
    # A Python that every user can run, as on a host; the Python of the tests may be accessible to root only.
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    assert system, "no Python for everybody"
    subprocess.run([system, "-m", "venv", "--without-pip", str(folder / "python")], check=True)
    bare = folder / "python" / "bin" / "python"
    hidden = folder / "hidden" / "python"
    hidden.parent.mkdir(mode=0o700)
    hidden.symlink_to(bare.resolve())
    hosts = {"hidden": installed(folder, "of-hidden", hidden), "bare": installed(folder, "of-bare", bare)}
    role = {"name": "backstop.postgres.scheduled_backups", "tasks_from": "ready"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": role, "vars": PLACES}],
    }
    book, inventory = folder / "play.json", folder / "inventory.json"
    book.write_text(json.dumps([play]), "utf-8")
    given = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": given}}), "utf-8")
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(book)]
    ended = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    assert ended.returncode == 2, ended.stdout
    told = {name: re.findall(r"fatal: \[%s\]: FAILED! => .*(?:\n .*)*" % name, ended.stdout) for name in hosts}
    for name, messages in told.items():
        assert len(messages) == 1 and "cannot run as nobody" in messages[0], (name, ended.stdout)
    assert "%s runs" % hidden in told["hidden"][0] and "Permission denied" in told["hidden"][0]
    assert "install python3-psycopg2" in told["bare"][0]
