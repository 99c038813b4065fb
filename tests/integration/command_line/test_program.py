# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program that hosts get: a Python without Ansible, cron's environment, killed, on a full disk."""

from __future__ import annotations

import io
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.program import build_program
from support.collection_files import LIBRARY
from support.databases import OWNER, PASSWORD

#: Failpoints of a backup, before it is committed.
PLACES = ["backup.snapshot", "backup.dumping", "backup.dumped", "backup.before-manifest", "backup.before-rename"]


def test_the_same_bytes_each_time():
    assert build_program("/usr/bin/python3") == build_program("/usr/bin/python3")
    program = build_program("/usr/bin/python3")
    assert program.startswith(b"#!/usr/bin/python3 -I\n")
    names = zipfile.ZipFile(io.BytesIO(program)).namelist()
    assert "__main__.py" in names and "_backstop/backups/make.py" in names
    library = {str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.*") if path.suffix in (".py", ".j2", ".css")}
    of_ansible = {"ansible_boundary.py", "ansible_prisma.py", "ansible_service.py", "ansible_words.py"}
    assert {name.replace("_backstop/", "", 1) for name in names} == library - of_ansible | {"__main__.py"}


@pytest.mark.parametrize("python", ["python3", "", "/usr/bin/python3\n", "/usr/bin/env python3"])
def test_a_path_that_is_none(python):
    with pytest.raises(Refused):
        build_program(python)


def test_a_life_in_the_environment_of_cron(backstop):
    backstop.run("list")
    probe = "import sys\ntry:\n import ansible\nexcept ImportError:\n sys.exit(7)"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(backstop.folder / "driver")}
    assert subprocess.run([sys.executable, "-S", "-s", "-c", probe], env=environment, check=False).returncode == 7
    made = backstop.run("backup", "shop")
    assert (made.status, made.stderr) == (0, "") and len(made.stdout.splitlines()) == 1
    for arguments in (["list"], ["show", "shop"], ["verify", "shop"], ["drill", "shop"], ["status", "shop"]):
        ended = backstop.run(*arguments)
        assert (ended.status, ended.stderr) == (0, ""), arguments
    assert json.loads(backstop.run("status", "--json").stdout)[0]["newest"]["level"] == "restored"
    asked = ("report", "shop", "--whole-store")
    assert json.loads(backstop.run(*asked, "--json").stdout)["backups"][0]["drill_passed"] is True
    ended = backstop.run(*asked, "--html", str(backstop.folder / "page.html"))
    assert ended.status == 1 and "without Jinja2" in ended.stderr and "python3-jinja2" in ended.stderr


def test_statuses_of_the_program(backstop):
    assert backstop.run("status", "shop").status == 4
    assert backstop.run("status", "nobody").status == 2
    assert backstop.run("drill", "shop").status == 3
    backstop.configure(connection={"port": 1})
    assert backstop.run("backup", "shop").status == 1


def test_a_host_without_the_driver(backstop):
    ended = backstop.run("backup", "shop", environment={"PYTHONPATH": ""})
    assert ended.status == 1 and "install python3-psycopg2" in ended.stderr and "ansible" not in ended.stderr
    assert backstop.run("list", environment={"PYTHONPATH": ""}).status == 0
    answer = backstop.folder / "answer"
    assert backstop.run("ready", "shop", "--answer", answer, environment={"PYTHONPATH": ""}).status == 1
    said = json.loads(answer.read_text("utf-8"))
    assert not said["ready"] and "python3-psycopg2" in said["message"]


def test_killed_anywhere_nothing_is_listed(backstop):
    """kill -9; the next run cleans up, makes a backup and reports nothing wrong about the first."""
    for place in PLACES:
        assert backstop.run("backup", "shop", environment={"BACKSTOP_FAILPOINT": place}).status == -signal.SIGKILL
        assert backstop("list", "--json").json == [], place
        assert backstop("status", "shop").status == 4, place
    assert backstop.run("backup", "shop").status == 0
    assert len(backstop("list", "--json").json) == 1
    assert not list(pathlib.Path(backstop.live.store.root).glob("*/.partial-*"))


def test_killed_after_its_commit_it_is_listed(backstop):
    assert backstop.run("backup", "shop", environment={"BACKSTOP_FAILPOINT": "backup.committed"}).status == -9
    (backup,) = backstop("list", "--json").json
    assert backup["level"] == "readable" and backstop("status", "shop").status == 0
    assert backstop("verify", "shop", backup["backup"]).status == 0 == backstop("status", "shop").status


def test_killed_at_any_moment(backstop, seed):
    """Every backup that is listed then can be restored, and the lock is free."""
    moments = random.Random(seed)
    for _time in range(3):
        with backstop.start("backup", "shop") as process:
            time.sleep(moments.uniform(0.05, 1.5))  # the test covers any moment; the backup must be correct at each
            process.kill()
            process.communicate()
        for backup in backstop("list", "--json").json:
            assert backstop("verify", "shop", backup["backup"]).status == 0
    assert backstop.run("backup", "shop", "--wait", "30").status == 0


def test_terminated_it_clears_up(backstop):
    """As systemd stops a service."""
    backstop.run("list")
    with backstop.live.session(user=OWNER) as cursor:
        cursor.execute('BEGIN; LOCK TABLE "TokenPurchase"')
        with backstop.start("backup", "shop") as process:
            deadline = time.monotonic() + 60
            while not list(pathlib.Path(backstop.live.store.root).glob("daily/.partial-*")):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            process.terminate()
            _stdout, stderr = process.communicate(timeout=60)
        cursor.execute("ROLLBACK")
    assert process.returncode == 1 and "Interrupted" in stderr and "run this again" in stderr
    assert not list(pathlib.Path(backstop.live.store.root).glob("*/.partial-*"))


def test_a_full_disk(backstop):
    """Simulated by a limit on the size of files: the archive does not fit, small files do."""
    backstop.live.execute(
        "INSERT INTO \"User\" SELECT 'x' || g, 'x' || g, md5(random()::text) || md5(g::text)"
        " FROM generate_series(1, 20000) g"
    )
    backstop.run("list")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100000, hard))
    try:
        ended = backstop.run("backup", "shop")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended.status == 1 and "pg_dump" in ended.stderr and PASSWORD not in ended.stderr
    assert backstop("list", "--json").json == []
    assert not list(pathlib.Path(backstop.live.store.root).glob("*/.partial-*"))
    (status,) = backstop("status", "--json").json
    assert not status["runs"]["backup"]["passed"]
    assert backstop.run("backup", "shop").status == 0


def test_no_progress_where_no_terminal_is(backstop):
    assert backstop.run("backup", "shop").stderr == ""
    told = backstop.run("backup", "shop", "--progress").stderr
    assert told.startswith("0 s: dumping the definitions\n") and "\r" not in told


def as_written(backstop, *arguments):
    """Argument list and environment of the program, for a test that starts it in its own way."""
    backstop.run("list")
    argv = [sys.executable, "-S", "-s", str(backstop.program), *arguments, "--config-directory", str(backstop.folder)]
    return argv, {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(backstop.folder / "driver")}


def test_from_a_directory_that_is_none(backstop, tmp_path):
    """As from the home of root, which the user of the backups cannot enter: pg_dumpall would fail there."""
    argv, environment = as_written(backstop, "backup", "shop")
    (tmp_path / "gone").mkdir()
    shell = ["/bin/sh", "-c", 'rmdir "$0" && exec "$@"', str(tmp_path / "gone"), *argv]
    done = subprocess.run(
        shell,
        cwd=tmp_path / "gone",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_progress_on_a_terminal(backstop):
    argv, environment = as_written(backstop, "backup", "shop")
    master, slave = os.openpty()
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=slave, check=False)
    os.close(slave)
    said = os.read(master, 10000).decode()
    os.close(master)
    assert done.returncode == 0
    lines = [line for line in said.split("\r\x1b[K") if line]
    assert lines[0] == "dumping the definitions" and lines[1].startswith("dumping, 0 of ") and lines[-1] == "backed up"
    assert said.endswith("\r\x1b[K"), "the line is removed"
