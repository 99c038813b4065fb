# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that installs the command: once, completely, and the same each time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.module_runner import run_module


def install(folder, path, **keywords):
    return run_module(folder, "backstop_command", {"path": str(path), "python": sys.executable}, **keywords)


def test_installed_once(tmp_path):
    path = tmp_path / "bin" / "backstop"
    path.parent.mkdir()
    predicted = install(tmp_path, path, check=True)
    assert not predicted.failed and predicted.result["changed"] and not path.exists()
    first = install(tmp_path, path)
    assert not first.failed and first.result["changed"] and first.result["dest"] == str(path)
    again = install(tmp_path, path, diff=True)
    assert not again.failed and not again.result["changed"] and again.result["checksum"] == first.result["checksum"]
    assert os.stat(path).st_mode & 0o777 == 0o755
    done = subprocess.run(
        [sys.executable, str(path), "list", "--config-directory", str(tmp_path / "none")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "The configurations cannot be listed" in done.stderr


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"path": "/usr/local/bin/backstop", "python": "python3"}, "Invalid path of a Python interpreter"),
        ({"paht": "/usr/local/bin/backstop"}, "paht"),
    ],
)
def test_bad_input_is_told_and_nothing_installed(tmp_path, arguments, told):
    answer = run_module(tmp_path, "backstop_command", arguments, check=True)
    assert answer.failed and told in answer.result["msg"]
