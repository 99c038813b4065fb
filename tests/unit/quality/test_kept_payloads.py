# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tests pack a module once for all playbooks, and again when its sources change."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

from support import bytecode


def test_a_module_is_packed_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BACKSTOP_TEST_CACHE", str(tmp_path))
    play = [
        {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]}
    ]
    playbook = tmp_path / "ping.yml"
    playbook.write_text(json.dumps(play), "utf-8")
    ansible = pathlib.Path(sys.executable).with_name("ansible")
    folder, packed = tmp_path / "payloads", []
    adhoc = [str(ansible), "localhost", "-c", "local", "-m", "ping"]
    for argv in (adhoc, [str(ansible) + "-playbook", str(playbook)]):
        settings = {**os.environ, **bytecode.environment(), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        done = subprocess.run([*argv, "-i", "localhost,"], env=settings, stdout=subprocess.PIPE, text=True, check=True)
        assert ("pong" if argv is adhoc else "ok=1") in done.stdout
        packed.append([(path.name, path.stat().st_mtime_ns) for path in folder.glob("*/*.ping-*-none")])
    assert len(packed[0]) == 1 and packed[0] == packed[1]


def test_changed_sources_are_packed_again(tmp_path) -> None:
    path = pathlib.Path(bytecode.environment()["ANSIBLE_CALLBACK_PLUGINS"]) / "kept_payloads.py"
    specification = importlib.util.spec_from_file_location("kept_payloads", path)
    assert specification is not None and specification.loader is not None
    plugin = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(plugin)
    assert (plugin.PLUGINS / "modules" / "operation.py").is_file()
    module = tmp_path / "modules" / "one.py"
    module.parent.mkdir()
    seen = set()
    for text in ("1", "2"):
        module.write_text(text, "utf-8")
        seen.add(plugin.version(tmp_path))
    assert len(seen) == 2
