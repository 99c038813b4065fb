# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-playbook shows of a module that takes long, and of one whose connection is cut."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Optional
from urllib.parse import quote

import pytest
from support.prisma_database import until
from support.ssh_server import ssh_server

LINE = re.compile(r"^\[(.+?)\] (\w+), (\d+) s: (.+)$", re.M)
STOP = str(int(signal.SIGSTOP))
USER = "postgres"
AS_USER = {"ansible_become": True, "ansible_become_method": "ansible.builtin.su", "ansible_become_user": USER}


@contextlib.contextmanager
def start(
    folder: pathlib.Path,
    hosts: Dict[str, Any],
    tasks: List[Any],
    *options: str,
    halting: bool = False,
    defaults: Optional[Dict[str, Any]] = None,
) -> "Iterator[subprocess.Popen[str]]":
    """Run ansible-playbook on hosts with these variables.

    :param halting: modules halt at the failpoint of their host
    :param defaults: options of all modules of the action group
    """
    play: Dict[str, Any] = {"hosts": "all", "gather_facts": False, "strategy": "ansible.builtin.free", "tasks": tasks}
    if defaults:
        play["module_defaults"] = {"group/backstop.postgres.database": defaults}
    if halting:
        play["environment"] = {"BACKSTOP_FAILPOINT": "{{ failpoint }}", "BACKSTOP_FAILPOINT_SIGNAL": STOP}
    inventory = {"all": {"hosts": hosts, "vars": {"ansible_python_interpreter": sys.executable}}}
    (folder / "hosts.json").write_text(json.dumps(inventory), "utf-8")
    (folder / "play.json").write_text(json.dumps([play]), "utf-8")
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(folder / "hosts.json"), str(folder / "play.json")]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*argv, *options], text=True, **pipes) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                for variables in hosts.values():
                    for pid in modules(pathlib.Path(variables["store"])):
                        os.kill(pid, signal.SIGKILL)


def modules(store: pathlib.Path) -> List[int]:
    """The processes of modules that show their progress."""
    return [int(json.loads(file.read_text("utf-8"))["pid"]) for file in store.glob("progress/*.json")]


def given(live: Any) -> Dict[str, Any]:
    """The options of every module."""
    return {
        "connection": {"url": live.site.connection.url()},
        "store": "{{ store }}",
        "client_bin_dir": live.site.client_bin_dir,
    }


def halted(store: pathlib.Path) -> int:
    """The process of the module that the failpoint halts."""

    def state(pid: int) -> str:
        return pathlib.Path("/proc/%d/stat" % pid).read_text("ascii").rsplit(")", 1)[1].split()[0]

    until(lambda: [pid for pid in modules(store) if state(pid) == "T"], "the module is halted")
    return modules(store)[0]


def shown_for(playing: "subprocess.Popen[str]", hosts: int) -> List[Any]:
    """The lines of progress, until there is one for that many hosts."""
    found: List[Any] = []
    while len({match[1] for match in found}) < hosts:
        line = playing.stderr.readline()
        assert line, playing.stdout.read()
        found += LINE.finditer(line)
    return found


def holds(folder: pathlib.Path, secret: str) -> List[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture
def folders() -> Iterator[Dict[str, pathlib.Path]]:
    """For two hosts; as root the second one belongs to a user without rights."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        found = {name: pathlib.Path(made) / name for name in ("one", "two")}
        for name, folder in found.items():
            (folder / "it's").mkdir(0o700, parents=True)
            for path in (folder, folder / "it's") if name == "two" and os.geteuid() == 0 else ():
                shutil.chown(path, USER)
        yield found


def test_two_hosts_at_once(plain, tmp_path, folders) -> None:
    """Each is told from the other, one is another user, and nothing of the arguments is left on disk.

    One is delegated, with the options of its action group. There is no terminal.
    """
    stores = {name: folder / "it's" for name, folder in folders.items()}
    # As the user without rights nothing but the system's own Python, which need not have psycopg2, can be run.
    unprivileged = {**AS_USER, "ansible_python_interpreter": "/usr/bin/python3"} if os.geteuid() == 0 else {}
    hosts: Dict[str, Any] = {
        "one": {"failpoint": "backup.dumping", "ansible_pipelining": True},
        "two": {"failpoint": "prune.removed", **unprivileged},
    }
    for name, variables in hosts.items():
        variables.update(store=str(stores[name]), ansible_remote_tmp=str(folders[name] / "tmp"))
        variables.update(ansible_connection="local")
    pruning = {"store": "{{ store }}"}
    hosts["runner"] = {key: value for key, value in hosts["one"].items() if key != "failpoint"}
    dumping = {"delegate_to": "runner", "when": "inventory_hostname == 'one'"}
    tasks = [
        {"backstop.postgres.pg_dump": {}, **dumping},
        {"backstop.postgres.pg_backup_prune": pruning, "when": "inventory_hostname == 'two'"},
    ]
    password = quote(plain.site.connection.password, safe="")
    with start(tmp_path, hosts, tasks, "--check", defaults=given(plain)) as playing:
        output, errors = playing.communicate(timeout=60)
    assert playing.returncode == 0 and not LINE.search(errors), output + errors
    assert not list(stores["one"].rglob("*")) and not list(stores["two"].rglob("*"))
    with start(tmp_path, hosts, tasks, halting=True, defaults=given(plain)) as playing:
        pids = [halted(store) for store in stores.values()]
        lines = shown_for(playing, 2)
        left = [file for folder in folders.values() for file in holds(folder, password)]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        output, errors = playing.communicate(timeout=60)
    assert playing.returncode == 0, output + errors
    assert "\r" not in errors and not left
    for match in lines:
        text = {"pg_dump": r"dumping.*", "pg_backup_prune": "pruning backups"}[match[2]]
        assert int(match[3]) >= 5 and re.fullmatch(text, match[4]), match[0]
        assert match[1] == {"pg_dump": "one -> runner", "pg_backup_prune": "two"}[match[2]], match[0]
    assert not any((store / "progress").exists() for store in stores.values())


@pytest.mark.ssh
def test_the_connection_is_cut(plain, tmp_path) -> None:
    """The task says what became of its module, and the same playbook run again ends that and goes on."""
    begin = {"kind": "deploy", "state": "begin", "request": {}, **given(plain)}
    tasks = [
        {"backstop.postgres.operation": begin, "register": "begun"},
        {"backstop.postgres.pg_dump": {**given(plain), "operation": "{{ begun.operation }}"}},
    ]
    with ssh_server() as server:
        host = {**server.variables(), "ansible_pipelining": True, "store": str(tmp_path / "store")}
        host["failpoint"] = "backup.dumping"
        with start(tmp_path, {"one": host}, tasks, halting=True) as playing:
            pid = halted(tmp_path / "store")
            server.cut()
            output, errors = playing.communicate(timeout=60)
        assert playing.returncode == 4, output + errors
        assert "The connection was cut while pg_dump was running; it is still running: dumping" in output + errors
        assert "Run the same playbook again" in output + errors
        with start(tmp_path, {"one": host}, tasks) as again:
            lines = shown_for(again, 1)
            os.kill(pid, signal.SIGCONT)
            output, errors = again.communicate(timeout=60)
    assert again.returncode == 0, output + errors
    assert [match[4].split(",")[0] for match in lines] == ["waiting for process %d to end: dumping" % pid]
    assert len(plain.store.backups()) == 1
