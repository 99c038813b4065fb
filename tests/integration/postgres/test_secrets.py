# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every module with a connection, run by Ansible with -vvv: no output, file or process shows the password."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from support import bytecode
from support.collection_files import ROOT
from support.databases import OWNER, PASSWORD
from support.reliability import times
from support.secret_forms import files_that_show, forms, shown, watched_processes

MODULES = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text("utf-8"))["action_groups"]["database"]
WRONG = "wr0ng p@ss/w#rd %41 'é\\"
#: What a module must be given beside the connection; what it then lacks is an error, which must show no secret either.
ARGUMENTS = {
    "deploy_gates_info": {"expected": []},
    "operation": {"state": "present", "kind": "deploy"},
    "pg_backup_verify": {"backup": "none"},
    "pg_restore": {"backup": "none", "database": "backstop_scratch_none"},
    "pg_table_check": {"table": "User"},
    "pg_table_info": {"tables": ["User"]},
    "prisma_migrate_deploy": {"expected": []},
    "prisma_migrate_info": {"migrations": []},
    "prisma_migrate_rehearse": {"expected": []},
    "prisma_migrate_resolve": {"migration": "none", "state": "applied"},
    "release_trial": {"database": "none", "release": "/none", "command": ["none"], "steps": []},
}


#: Every third one in CI: each call takes a second of CPU time.
TRIED = MODULES[:: times(3, 1)]


def tasks(connection, store, client):
    for name in TRIED:
        given = {"connection": connection, "store": store, "client_bin_dir": client, **ARGUMENTS.get(name, {})}
        yield {"name": name, "backstop.postgres." + name: given, "ignore_errors": True, "register": "result"}
        yield {"ansible.builtin.debug": {"var": "result"}}


def play(folder, content):
    """The output of a playbook, with everything that Ansible wrote on this host kept."""
    path = folder / "play.yml"
    path.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": content}]), "utf-8")
    own = {
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_LOG_PATH": str(folder / "logs" / "ansible.log"),
        "ANSIBLE_PIPELINING": "true",
    }
    (folder / "logs").mkdir()
    argv = ["-vvv", "-i", "localhost,", "-c", "local", "-e", "@" + str(folder / "secret.yml")]
    argv += ["-e", "ansible_python_interpreter=" + sys.executable, str(path)]
    return subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", *argv],
        env={**os.environ, **bytecode.environment(), **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.fault(
    "secrets", "modules with a right and a wrong password, -vvv: output, files, processes", by="searched for: not there"
)
@pytest.mark.parametrize("how", ["wrong", "right"][: times(1, 2)])
def test_no_module_shows_the_password(plain, tmp_path, how, tried):
    password = WRONG if how == "wrong" else PASSWORD
    url = plain.cluster.url(plain.name, user=OWNER, password=password)
    (tmp_path / "secret.yml").write_text(yaml.safe_dump({"secret": {"url": url}}), "utf-8")
    plain.backup()
    with watched_processes(password) as processes:
        done = play(tmp_path, list(tasks("{{ secret }}", plain.store.root, str(plain.cluster.bin_dir))))
    assert done.returncode == 0, done.stdout
    assert "ok=%d " % (2 * len(TRIED)) in done.stdout, done.stdout
    (tmp_path / "secret.yml").unlink()
    assert shown(password, done.stdout) == []
    assert processes == set()
    folders = [tmp_path / name for name in ("local", "remote", "logs") if (tmp_path / name).exists()]
    assert files_that_show(password, *folders, tmp_path / "store") == []
    assert (tmp_path / "logs" / "ansible.log").stat().st_size > 10000
    tried(len(TRIED))


def test_the_search_finds_it(tmp_path):
    """Otherwise nothing above proves anything."""
    for form in forms(PASSWORD):
        path = tmp_path / new_id()
        path.write_text("before " + form + " after", "utf-8")
        assert files_that_show(PASSWORD, tmp_path) == [str(path)] and shown(PASSWORD, path.read_text("utf-8"))
        path.unlink()
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    for given in ({"args": [*argv, PASSWORD]}, {"args": argv, "env": {**os.environ, "SECRET": PASSWORD}}):
        with watched_processes(PASSWORD) as seen, subprocess.Popen(**given) as process:
            while not seen:
                assert process.poll() is None
            process.kill()
