# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run one module of the collection as a task would: real Ansible, arguments in, result out.

answer = run_module(tmp_path, "prisma_migrate_info", {"connection": {"url": url}, "project": path})
answer.result["pending"]
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Mapping

from . import bytecode


@dataclass(frozen=True)
class Answer:
    """A module's result, and everything that Ansible printed."""

    failed: bool
    result: Dict[str, Any]
    printed: str


def run_module(
    folder: pathlib.Path, name: str, arguments: Mapping[str, Any], *, check: bool = False, diff: bool = False
) -> Answer:
    """Run a module on this host.

    :param folder: where the run's files are written
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        values = pathlib.Path(work) / "arguments.json"
        values.write_text(json.dumps({"arguments": dict(arguments)}), encoding="utf-8")
        argv = [
            sys.executable,
            "-m",
            "ansible",
            "adhoc",
            "localhost",
            "--inventory",
            "localhost,",
            "--connection",
            "local",
            "-vvv",
            "--extra-vars",
            "@%s" % values,
            "--extra-vars",
            "ansible_python_interpreter=" + sys.executable,
            "--module-name",
            "backstop.postgres." + name,
            "--tree",
            work + "/results",
            "--args",
            json.dumps({key: "{{ arguments['%s'] }}" % key for key in arguments}),
        ]
        argv += ["--check"] * check + ["--diff"] * diff
        ended = subprocess.run(
            argv,
            env={**os.environ, **bytecode.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
        results = list((pathlib.Path(work) / "results").glob("*"))
        assert results, ended.stdout
        # --tree leaves out whether it failed; 2 is the exit status for a failed task.
        assert ended.returncode in (0, 2), ended.stdout
        return Answer(ended.returncode == 2, json.loads(results[0].read_text(encoding="utf-8")), ended.stdout)
