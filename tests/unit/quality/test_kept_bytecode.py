# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping compiled modules for the tests changes nothing except the time."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from support import bytecode


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a module from an archive as Ansible does; its output and its errors."""
    monkeypatch.setenv("BACKSTOP_TEST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()

    def run(name: str, source: str) -> "subprocess.CompletedProcess[str]":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("module.py", source)
        code = "import sys; sys.path.insert(0, %r); import module" % str(tmp_path / name)
        environment = {**os.environ, **bytecode.environment()}
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    return run


def kept() -> int:
    folder = pathlib.Path(bytecode.environment()["BACKSTOP_TEST_BYTECODE"])
    return len(list(folder.iterdir()))


def test_the_same_text_is_compiled_once(run) -> None:
    source = "print('as written')\nraise ValueError(__file__)\n"
    for name in ("first.zip", "second.zip"):
        done = run(name, source)
        assert done.stdout == "as written\n"
        # A traceback names the archive of its own run.
        assert name + '/module.py", line 2' in done.stderr
        assert kept() == 1


def test_another_text_is_another_module(run) -> None:
    assert run("one.zip", "print(1)\n").stdout == "1\n"
    assert run("one.zip", "print(2)\n").stdout == "2\n"
    assert kept() == 2


def test_a_text_that_is_no_python(run) -> None:
    for _run in range(2):
        assert "SyntaxError" in run("one.zip", "print(\n").stderr
