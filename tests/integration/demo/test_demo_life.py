# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole demo, from an empty directory back to one: prepared, interrupted, used, stopped, restarted, removed."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import ports
from demo.places import CHECKOUT, Places
from demo.postgres_server import Cluster, other_place
from demo.programs import DemoError
from demo.steps import wait_until
from support import shown_output

pytestmark = [pytest.mark.prisma, pytest.mark.serial]
#: as many as the demo makes unless it is asked for others
ROWS = 3000
LONGEST = 420
#: A callback plugin, which is in a folder of its own.
COUNTED_MODULES = CHECKOUT / "tests" / "support" / "counted_modules"
#: The commands whose output README and tutorial show, in their order, by the names in the pages' marks.
SHOWN = {
    "deploy": "./demo.sh",
    "again": "./demo.sh",
    "plan": "./demo.sh run rollback_plan.yml",
    "check": "./demo.sh run rollback_complete.yml --check",
    "revert": "./demo.sh run rollback_complete.yml",
    "databases": "./demo.sh status",
    "undo": "./demo.sh run undo_rollback.yml",
}


@dataclasses.dataclass
class Shown:
    """What a command of the pages printed, and the modules that its playbook executed."""

    printed: str
    modules: list[dict[str, str | None]]


class Demo:
    """demo.sh in a separate directory."""

    def __init__(self, directory: Path) -> None:
        self.places = Places(directory)
        self.environment = dict(os.environ, BACKSTOP_DEMO_DIRECTORY=str(directory), PYTHON=sys.executable)

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = ["bash", str(CHECKOUT / "demo.sh"), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=self.environment, text=True, start_new_session=True, **pipes)

    def run(self, *words: str) -> str:
        program = self.start(*words)
        out, errors = program.communicate(timeout=LONGEST)
        assert program.returncode == 0, out + errors
        return out

    def refuse(self, *words: str) -> str:
        program = self.start(*words)
        _out, errors = program.communicate(timeout=LONGEST)
        assert program.returncode == 1
        assert "Traceback" not in errors
        return errors

    def settings(self) -> dict[str, str]:
        """A shell's variables after eval "$(./demo.sh env)"."""
        script = f'eval "$({shlex.quote(str(CHECKOUT / "demo.sh"))} env)"; env -0'
        done = subprocess.run(["bash", "-c", script], env=self.environment, check=True, stdout=subprocess.PIPE)
        return dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)

    def in_shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=self.settings(), check=True, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = Demo(tmp_path_factory.mktemp("demo") / "it is here")
    yield made
    made.run("clean")


def health(address: str) -> dict[str, object]:
    with urllib.request.urlopen(address + "/api/health", timeout=10) as answer:
        content: dict[str, object] = json.loads(answer.read())
    return content


def kill_when(demo: Demo, reached: Path) -> None:
    """Start `up` and kill it as soon as something that it makes exists."""
    program = demo.start("up", "--rows", str(ROWS))

    def there() -> bool:
        assert program.poll() is None, "it ended before it was killed"
        return reached.exists()

    wait_until(there, LONGEST, lambda: DemoError(f"{reached} was never made"))
    os.kill(program.pid, signal.SIGKILL)
    program.communicate()


# The tests below depend on each other, in order: each begins where the one before ended.


def test_cut_off_again_and_again_it_is_finished_by_the_next_run(demo: Demo) -> None:
    places = demo.places
    for reached in (places.environment, places.cluster / "cluster.json", places.environment_file, places.current):
        kill_when(demo, reached)
    said = demo.run("up", "--rows", str(ROWS))
    assert "health: ok" in said, said
    assert "before-et-100" in said


def test_prepared_again_it_changes_nothing(demo: Demo) -> None:
    ask = "SELECT pg_postmaster_start_time()"
    before = demo.in_shell(f"psql -XAtc '{ask}'; pm2 pid electricity-tokens")
    assert "Application runs" in demo.run("up")
    assert demo.in_shell(f"psql -XAtc '{ask}'; pm2 pid electricity-tokens") == before


def test_its_settings_lead_a_shell_to_all_of_it(demo: Demo) -> None:
    settings = demo.settings()
    assert demo.in_shell("psql -XAtc 'SELECT count(*) FROM \"TokenPurchase\"'") == str(ROWS)
    assert demo.in_shell("psql -XAtc 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user'") == "f"
    password = Cluster.open(demo.places.cluster).password_of(settings["PGUSER"])
    assert [name for name, value in settings.items() if password in value] == ["DATABASE_URL"]
    assert settings["BACKSTOP_STORE"] == str(demo.places.store)
    found = health(settings["APPLICATION_URL"])
    assert found["status"] == "ok"
    assert found["release"] == demo.places.current.resolve().name


def test_files_with_passwords_are_for_their_owner_only(demo: Demo) -> None:
    cluster = Cluster.open(demo.places.cluster)
    secrets = [cluster.password.encode(), cluster.password_of("electricity_tokens").encode()]
    holding = set()
    for folder, folders, files in os.walk(demo.places.directory):
        folders[:] = [name for name in folders if name not in ("node_modules", "venv", "npm-cache", "data", "programs")]
        for name in files:
            path = Path(folder, name)
            if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
                holding.add(path.resolve())
    assert demo.places.environment_file.resolve() in holding
    assert {path.name for path in holding} == {".env", "cluster.json", "pgpass", "secrets.yml"}
    assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}


def test_a_playbook_runs_on_it(demo: Demo, tmp_path: Path) -> None:
    playbook = tmp_path / "look.yml"
    playbook.write_text(
        "- hosts: application\n  gather_facts: false\n  tasks:\n"
        "    - backstop.postgres.pg_table_info: {connection: '{{ backstop_connection }}'}\n      register: found\n"
        "    - ansible.builtin.assert: {that: \"found.tables | map(attribute='name') is contains('TokenPurchase')\"}\n"
        "    - ansible.builtin.assert: {that: wanted == 'this one', quiet: true}\n"
    )
    assert "failed=0" in demo.run("run", str(playbook), "-e", "wanted='this one'")
    program = demo.start("run", str(playbook), "-e", "wanted=other")
    out, _errors = program.communicate(timeout=LONGEST)
    assert program.returncode == 2
    assert "failed=1" in out


@pytest.fixture(scope="module")
def shown(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """The commands of the pages, run in their order."""
    folder = tmp_path_factory.mktemp("modules")
    found = {}
    for name, command in SHOWN.items():
        file = folder / name
        demo.environment.update(ANSIBLE_CALLBACK_PLUGINS=str(COUNTED_MODULES), BACKSTOP_TEST_MODULES=str(file))
        printed = shown_output.in_directory(demo.places.directory, ".demo", demo.run(*command.split()[1:]))
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        found[name] = Shown(printed, [json.loads(line) for line in lines])
    return found


def test_the_pages_show_what_it_prints(shown: dict[str, Shown]) -> None:
    """With BACKSTOP_WRITE_PAGES in the environment the pages are written anew: look at the difference."""
    outputs = {name: one.printed for name, one in shown.items()}
    if os.environ.get("BACKSTOP_WRITE_PAGES"):
        shown_output.write(SHOWN, outputs)
    differences = list(shown_output.differences(SHOWN, outputs))
    assert not differences, "\n".join(differences)


def test_a_deploy_needs_few_modules(shown: dict[str, Shown]) -> None:
    """Each costs most of a second."""
    modules = shown["deploy"].modules
    (runner,) = {module["to"] for module in modules} - {None}
    assert 0 < len({module["task"] for module in modules if module["to"] == runner}) <= 14, modules
    assert 0 < len(shown["again"].modules) <= 4, shown["again"].modules


def test_what_cannot_be_done_is_refused_and_says_what_can(demo: Demo) -> None:
    assert "clean first" in demo.refuse("up", "--rows", str(ROWS + 1))
    assert "name a file or one of the collection's" in demo.refuse("run", "no_such_playbook")


def test_stopped_it_leaves_no_process_and_started_it_is_what_it_was(demo: Demo) -> None:
    settings = demo.settings()
    demo.run("stop")
    assert ports.is_free(int(settings["PGPORT"]))
    assert ports.is_free(int(settings["APPLICATION_URL"].rpartition(":")[2]))
    assert "run ./demo.sh up" in demo.refuse("run", "deploy_receiptdata.yml")
    assert "is stopped" in demo.run("status")
    assert "Application started again" in demo.run("up")
    assert demo.settings() == settings
    assert demo.in_shell("psql -XAtc 'SELECT count(*) FROM \"TokenPurchase\"'") == str(ROWS)


def test_what_somebody_stopped_on_purpose_stays_stopped(demo: Demo) -> None:
    demo.in_shell("pm2 stop electricity-tokens")
    assert "left so" in demo.run("up")
    demo.in_shell("pm2 start electricity-tokens")
    assert "Application runs" in demo.run("up")


def test_removed_it_leaves_nothing(demo: Demo) -> None:
    settings = demo.settings()
    home = Cluster.open(demo.places.cluster).home
    demo.run("clean")
    assert ports.is_free(int(settings["PGPORT"]))
    assert ports.is_free(int(settings["APPLICATION_URL"].rpartition(":")[2]))
    places = demo.places
    for path in (places.directory, places.pm2_home, home, other_place(places.cluster)):
        assert not path.exists()
