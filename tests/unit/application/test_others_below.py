# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which processes work below a directory or were started from there, except known ones."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import (
    others_below,
)


@contextlib.contextmanager
def runs(*argv, cwd):
    process = subprocess.Popen([*argv], cwd=cwd, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_by_their_directory_or_their_program(tmp_path):
    root = tmp_path / "root"
    release = root / "releases" / "one"
    release.mkdir(parents=True)
    (tmp_path / "root2").mkdir()
    program = shutil.copy(shutil.which("sleep"), str(release / "worker"))
    parent = ["sh", "-c", "echo; sleep 60 & wait"]
    with runs("sleep", "60", cwd=release) as inside, runs(program, "60", cwd="/") as started, runs(
        "sleep", "60", cwd=tmp_path / "root2"
    ), runs(*parent, cwd=release) as known:
        known.stdout.readline()
        assert others_below(str(root), [known.pid]) == sorted(
            [(inside.pid, "sleep", str(release)), (started.pid, "worker", "/")]
        )
        assert len(others_below(str(root), [])) == 4, "the shell and what it started too"
        assert others_below(str(tmp_path / "none"), []) == []
