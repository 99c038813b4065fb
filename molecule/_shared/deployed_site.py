# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests check on a host, and how they run another playbook.

testinfra_hosts = ["local://"]          # pytest's own host is not used
site = Site("backstop-deploy")
run = play("undo_rollback", rollback_accept_lost_rows=1)
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
from typing import Any, Dict, List, Optional

import testinfra
import yaml

HOME = "/srv/electricity-tokens"
STORE = "/var/backups/backstop"
BEFORE, AFTER = "before-et-100", "et-100"
FIRST, RECEIPTS = "20251001000000_init", "20251108000000_add_receipt_data"
PLAYBOOKS = pathlib.Path(__file__).resolve().parents[2] / "playbooks"


def connect(name: str, user: str = "") -> Any:
    """A host of the scenario over ssh, with one connection for all commands."""
    instances = yaml.safe_load(pathlib.Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text("utf-8"))
    (found,) = [instance for instance in instances if instance["instance"] == name]
    arguments = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR"
    sockets = os.environ.get("ANSIBLE_SSH_CONTROL_PATH_DIR", "")
    return testinfra.get_host(
        "ssh://%s@127.0.0.1:%d" % (user or found["user"], found["port"]),
        ssh_identity_file=found["identity_file"],
        ssh_extra_args=arguments,
        **({"controlpath": sockets + "/tests-%%r-%%p"} if sockets else {}),
    )


@dataclasses.dataclass
class Run:
    """A finished playbook run."""

    status: int
    output: str

    @property
    def text(self) -> str:
        """The output in one line: Ansible's display may break lines anywhere."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        """Number of tasks that changed something, from the recap."""
        return sum(int(number) for number in re.findall(r"\bchanged=(\d+)", self.output.rpartition("PLAY RECAP")[2]))

    def must_say(self, *words: str) -> None:
        for word in words:
            assert word in self.text, self.output


def play(playbook: str, *arguments: str, **variables: object) -> Run:
    """Run a playbook of the collection on the scenario's hosts, as a user would."""
    argv = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(PLAYBOOKS / (playbook + ".yml"))]
    argv += ["-e", json.dumps(variables), *arguments]
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        argv,
        check=False,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Run(done.returncode, done.stdout)


def succeeds(playbook: str, *arguments: str, **variables: object) -> Run:
    run = play(playbook, *arguments, **variables)
    assert run.status == 0, run.output
    return run


class Site:
    """A host, as the application's own user sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host = connect(name)

    def sql(self, statement: str, database: str = "electricity_tokens") -> str:
        command = "PGPASSFILE=%s/.pgpass psql -X -At -v ON_ERROR_STOP=1 -h database -U electricity_tokens -d %s -c %%s"
        return str(self.host.check_output(command % (HOME, database), statement))

    def databases(self) -> List[str]:
        return self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1", "postgres").splitlines()

    def applied(self) -> List[str]:
        query = "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
        return self.sql(query + " ORDER BY 1").splitlines()

    def has_table(self, name: str) -> bool:
        return self.sql("SELECT to_regclass('public.\"%s\"') IS NOT NULL" % name) == "t"

    def commit(self, tag: str) -> str:
        return str(self.host.check_output("git --git-dir %s/repository.git rev-parse %s^{commit}", HOME, tag))

    def health(self) -> Dict[str, Any]:
        read = (
            "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:3000/api/health').read().decode())"
        )
        return dict(json.loads(self.host.check_output("python3 -c %s", read)))

    def runs(self, tag: str) -> bool:
        """Whether the application is healthy and runs this release, in the directory that `current` points to."""
        health, commit = self.health(), self.commit(tag)
        current = self.host.check_output("readlink -f %s/application/current", HOME)
        return (health["status"], health["release"]) == ("ok", commit) and current.endswith("/releases/" + commit)

    def pm2(self, *words: str) -> str:
        command = "PM2_HOME=%s/pm2-home %s/pm2/node_modules/.bin/pm2 %s" % (HOME, HOME, " ".join(words))
        return str(self.host.check_output(command))

    def processes(self) -> List[Dict[str, Any]]:
        listed = self.pm2("jlist")
        return list(json.loads(listed[listed.index("[") :]))

    def process(self) -> Any:
        """The same value means that the application was never stopped."""
        (found,) = self.processes()
        return found["pid"], found["pm2_env"]["restart_time"], found["pm2_env"]["status"]

    def contents(self, pattern: str) -> List[str]:
        """Contents of the store's files that match, sorted by name."""
        script = "import glob, json, sys; print(json.dumps([open(p).read() for p in sorted(glob.glob(sys.argv[1]))]))"
        return list(json.loads(self.host.check_output("python3 -c %s %s", script, "%s/%s" % (STORE, pattern))))

    def manifests(self) -> List[Dict[str, Any]]:
        """The manifests of all backups, oldest first."""
        found = map(json.loads, self.contents("*/*/manifest.json"))
        return sorted(found, key=lambda manifest: str(manifest["created"]))

    def operations(self) -> List["Operation"]:
        """Oldest first; their ids begin with the time."""
        headers, journals = self.contents("operations/*/operation.json"), self.contents("operations/*/journal.jsonl")
        return [
            Operation(json.loads(header), [json.loads(line) for line in journal.splitlines()])
            for header, journal in zip(headers, journals)
        ]

    def files(self) -> str:
        """Size and modification time of every file of the store and of the releases, and the target of `current`."""
        find = "find %s/application %s -not -path '*/node_modules/*' -printf '%%p %%y %%s %%T@ %%l\\n' | sort"
        return str(self.host.check_output(find % (HOME, STORE)))


@dataclasses.dataclass
class Operation:
    """A deploy, rollback or undo, by its journal."""

    header: Dict[str, Any]
    journal: List[Dict[str, Any]]

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def closed(self) -> Dict[str, Any]:
        found = [entry for entry in self.journal if entry["event"] == "closed"]
        return found[-1] if found else {}

    @property
    def outcome(self) -> Optional[str]:
        return self.closed.get("outcome")
