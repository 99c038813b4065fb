# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the runbook's own commands, as a user would paste them, in a separate directory."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import List

from support.databases import Live

#: The name in the runbook's commands.
NAME = "electricity_tokens"


class Shell:
    """bash with PostgreSQL's programs first in PATH, the port and the superuser's password in the environment."""

    def __init__(self, live: Live, folder: pathlib.Path) -> None:
        self.live = live
        self.folder = folder

    def run(self, script: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
        environment = self.live.cluster.environment("postgres")
        environment["PATH"] = "%s:%s" % (self.live.cluster.bin_dir, os.environ["PATH"])
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment,
            timeout=seconds,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def files(self) -> List[pathlib.Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())
