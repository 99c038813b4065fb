# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The callback on real runs of a small role in a collection of the same name, all started at once."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import subprocess
import sys
from typing import Dict, List, Tuple

import pytest
from support.collection_files import ROOT

ANSIBLE = pathlib.Path(sys.executable).parent / "ansible-playbook"

#: Answers as the modules of this collection do: with a story, or with an error that has a hint.
MODULE = """#!/usr/bin/python
DOCUMENTATION = "module: tell"
from ansible.module_utils.basic import AnsibleModule
options = dict(story=dict(type="list", elements="str"), error=dict(), warning=dict())
options["at"] = dict(type="dict", options=dict(port=dict()))
module = AnsibleModule(options, supports_check_mode=True)
if module.params["warning"]:
    module.warn(module.params["warning"])
if module.params["error"]:
    module.fail_json(msg=module.params["error"], hint="", found="")
module.exit_json(changed=True, story=module.params["story"])
"""

ROLE = """
- name: Keep a fact
  ansible.builtin.set_fact: {tiny_fact: 1}
- name: There must be a fact
  ansible.builtin.assert: {that: tiny_fact == 1}
- name: Run the hook
  ansible.builtin.include_tasks: "{{ hook }}"
- name: Not this time
  ansible.builtin.command: "false"
  when: false
- name: Look at the tables
  backstop.postgres.tell:
    warning: An index is old.
    at: "{{ at | default(omit) }}"
    story: &tables
      - "open    migrations   pending: 20251108000000_add_receipt_data, 20251109000000_add_another_table"
      - "open    store        Größe 64 GiB"
  register: tiny_tables
- name: Show them
  ansible.builtin.debug: {msg: "{{ tiny_tables.story }}"}
- name: Write a file
  ansible.builtin.copy: {content: "new\\n", dest: "{{ file }}", mode: "0600"}
- name: Change it, or go back
  block:
    - name: Migrate
      backstop.postgres.tell:
        error: "{{ error | default(omit) }}"
        story: [Migrated.]
  rescue:
    - name: Put it back
      backstop.postgres.tell: {story: [Put back.]}
    - name: End as a failure
      ansible.builtin.fail: {msg: "It was rolled back. {{ ansible_failed_result.msg }}"}
- name: Say what happened
  ansible.builtin.debug:
    msg:
      - Release 1 runs.
      - >-
        To go back: ansible-playbook backstop.postgres.rollback_complete
        -e rollback_backup=daily-20261130T0000Z-000000 -e a=1
"""

HOOK = """
- name: A hook of the user
  ansible.builtin.set_fact: {mine: 1}
- name: Another one, skipped
  ansible.builtin.set_fact: {mine: 2}
  when: false
"""

PLAY = """
- name: Small play
  hosts: all
  gather_facts: false
  roles: [{role: backstop.postgres.tiny}]
"""

ERROR = (
    "The lock was not had. Found: pid 7 holds it. Expected: nobody does."
    " What to do: wait for it, or end the session that holds it."
)
#: name of the run: arguments, environment, hosts
RUNS: Dict[str, Tuple[List[str], Dict[str, str], str]] = {
    "narrow": ([], {"COLUMNS": "40", "LANG": "C", "LC_ALL": "", "PYTHONIOENCODING": "ascii"}, "one,"),
    "usual": ([], {"COLUMNS": "80"}, "one,"),
    "two hosts": (["--check", "--diff"], {}, "one,two,"),
    "failing": (["-e", '{"error": "%s"}' % ERROR], {"COLUMNS": "80"}, "one,"),
    "wrong option": (["-e", '{"at": {"dbname": "one"}}'], {"COLUMNS": "80"}, "one,"),
    "verbose": (["-v"], {}, "one,"),
    "terminal": ([], {"COLUMNS": "80"}, "one,"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    folder = tmp_path_factory.mktemp("story")
    ours = folder / "ansible_collections" / "backstop" / "postgres"
    files = {
        ours / "plugins" / "callback" / "story.py": (ROOT / "plugins" / "callback" / "story.py").read_text("utf-8"),
        ours / "plugins" / "modules" / "tell.py": MODULE,
        ours / "roles" / "tiny" / "tasks" / "main.yml": ROLE,
        folder / "hook.yml": HOOK,
        folder / "play.yml": PLAY,
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    started, ended = {}, {}
    for name, (arguments, environment, hosts) in RUNS.items():
        variables = ["-e", "hook=%s" % (folder / "hook.yml"), "-e", "file=%s" % (folder / name.replace(" ", "_"))]
        argv = [str(ANSIBLE), "-i", hosts, "-c", "local", str(folder / "play.yml"), *variables, *arguments]
        argv += ["-e", "ansible_python_interpreter=%s" % sys.executable]
        settings = {
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "backstop.postgres.story",
            "ANSIBLE_COLLECTIONS_PATH": str(folder),
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_NOCOLOR": "",
            "PYTHONUNBUFFERED": "",  # as users run it: standard output is buffered
            **environment,
        }
        output = pty.openpty() if name == "terminal" else None
        stream = output[1] if output else subprocess.PIPE
        started[name] = (
            subprocess.Popen(argv, env=settings, cwd=folder, stdout=stream, stderr=subprocess.STDOUT),
            output,
        )
    for name, (process, output) in started.items():
        if output:
            os.close(output[1])
            ended[name] = _read_terminal(output[0])
            process.wait(120)
        else:
            ended[name] = process.communicate(timeout=120)[0].decode("utf-8")
        assert (process.returncode != 0) == (name in ("failing", "wrong option")), ended[name]
    return ended


def _read_terminal(descriptor: int) -> str:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # what Linux answers when the other side is closed
            piece = b""
        if not piece:
            os.close(descriptor)
            return found.decode("utf-8").replace("\r\n", "\n")
        found += piece


def lines(text: str) -> List[str]:
    """Non-empty lines without the seconds."""
    return [re.sub(r"^ +\d+\.\d s", "T s", line).rstrip() for line in text.splitlines() if line.strip()]


def test_each_step_is_a_line_and_its_story_stands_below(runs: Dict[str, str]) -> None:
    told = lines(runs["usual"])
    assert told[0].startswith("PLAY [Small play] ***")
    assert told[1].startswith("TASK [backstop.postgres.tiny : A hook of the user] ***") and told[2] == "ok: [one]"
    assert told[3].startswith("TASK [backstop.postgres.tiny : Another one, skipped]") and told[4] == "skipping: [one]"
    assert told[5:12] == [
        "T s  changed  Look at the tables",
        "[WARNING]: An index is old.",
        "    open    migrations   pending: 20251108000000_add_receipt_data,",
        "                         20251109000000_add_another_table",
        "    open    store        Größe 64 GiB",
        "T s  changed  Write a file",
        "T s  changed  Migrate",
    ]
    assert told[12] == "    Migrated." and told[13].startswith("PLAY RECAP")
    for hidden in ("Keep a fact", "There must be", "Not this time", "included:", "Show them", "Say what"):
        assert hidden not in runs["usual"]


def test_the_last_text_stands_last_and_its_command_whole(runs: Dict[str, str]) -> None:
    command = (
        "  ansible-playbook backstop.postgres.rollback_complete -e rollback_backup=daily-20261130T0000Z-000000 -e a=1"
    )
    for name in ("usual", "narrow"):
        assert lines(runs[name])[-3:] == ["Release 1 runs.", "To go back:", command]


def test_lines_fit_a_narrow_terminal(runs: Dict[str, str]) -> None:
    ours = [line for line in runs["narrow"].splitlines() if line.startswith("   ") and "ansible-playbook" not in line]
    assert len(ours) > 5 and max(map(len, ours)) <= 40, ours


def test_a_failure_stands_whole_once_and_last(runs: Dict[str, str]) -> None:
    text = " ".join(runs["failing"].split())
    assert text.count(ERROR) == 1 and text.endswith("It was rolled back. " + ERROR)
    assert runs["failing"].count("The lock was not had.") == 2  # the first time in the one line that says what failed
    told = lines(runs["failing"])
    assert "T s  FAILED   Migrate" in told and "T s  changed  Put it back" in told
    assert "End as a failure" not in text and "NO MORE HOSTS" not in text and "fatal:" not in text
    assert "failed=1" in text and "rescued=1" in text


def test_a_wrong_option_of_ours_stands_once(runs: Dict[str, str]) -> None:
    """It is a mistake in the user's variables, and not a crash whose origin must be shown."""
    text = " ".join(runs["wrong option"].split())
    message = (
        "Unsupported parameters for (backstop.postgres.tell) module: at.dbname. Supported parameters include: port."
    )
    assert text.count("Unsupported parameters") == 1 and text.endswith(message)
    assert "T s  FAILED   Look at the tables" in lines(runs["wrong option"]) and "Origin" not in text


def test_check_mode_and_diffs_and_several_hosts(runs: Dict[str, str]) -> None:
    told = lines(runs["two hosts"])
    assert told.count("+new") == 2
    for host in ("one", "two"):
        assert told.count("T s  changed  Write a file [%s]" % host) == 1
    assert told.count("T s  changed  Migrate [one]") + told.count("T s  changed  Migrate [two]") == 2
    assert told.count("Release 1 runs.") == 1


def test_verbose_is_the_default_callback(runs: Dict[str, str]) -> None:
    told = runs["verbose"]
    for part in (
        "TASK [backstop.postgres.tiny : Keep a fact] ***",
        "skipping: [one]",
        "changed: [one] => {",
        "Show them",
    ):
        assert part in told
    assert "T s" not in lines(told)


def test_no_colour_without_a_terminal_and_no_state_by_colour_alone(runs: Dict[str, str]) -> None:
    assert all("\x1b" not in text for name, text in runs.items() if name != "terminal")
    assert "\x1b[0;33m" in runs["terminal"]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", runs["terminal"])
    assert lines(plain)[5:] == lines(runs["usual"])[5:]


def test_an_encoding_without_umlauts(runs: Dict[str, str]) -> None:
    assert re.search(r"Gr\S+e 64 GiB", runs["narrow"]) and "Traceback" not in runs["narrow"]
