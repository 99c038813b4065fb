# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``backstop`` on a live database of a test: in this process, or as the program on hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, Dict, List, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import main
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.program import build_program
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from support.databases import OWNER, Live


@dataclasses.dataclass
class Ended:
    """The result of a call."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def _with_folder(folder: pathlib.Path, arguments: Any) -> List[str]:
    return [*map(str, arguments), "--config-directory", str(folder)]


def call_command(folder: pathlib.Path, *arguments: Any) -> Ended:
    """Call the command in this process, with the configurations of this folder."""
    umask, directory = os.umask(0o022), os.getcwd()
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                status = main(_with_folder(folder, arguments))
            except SystemExit as ended:  # argparse
                status = int(ended.code or 0)
    finally:
        os.umask(umask)
        os.chdir(directory)
    return Ended(status, stdout.getvalue(), stderr.getvalue())


@dataclasses.dataclass
class BackstopCommand:
    """A configuration directory, and calls with it."""

    live: Live
    folder: pathlib.Path

    @property
    def textfile(self) -> pathlib.Path:
        return self.folder / "metrics.prom"

    @property
    def password_file(self) -> pathlib.Path:
        return self.folder / "password"

    @property
    def program(self) -> pathlib.Path:
        return self.folder / "backstop"

    def configure(self, name: str = "shop", user: str = OWNER, **changes: Any) -> None:
        """Write the configuration; the arguments replace parts of it."""
        settings = Settings.from_url(self.live.cluster.url(self.live.name, user=user))
        self.password_file.write_text(settings.password + "\n", "utf-8")
        connection: Dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "user": user,
            "database": self.live.name,
        }
        content: Dict[str, Any] = {
            "connection": {**connection, **changes.pop("connection", {})},
            "store": self.live.store.root,
            "client_bin_dir": str(self.live.cluster.bin_dir),
            "password_file": str(self.password_file),
            "textfile": str(self.textfile),
            **changes,
        }
        path = self.folder / (name + ".conf")
        path.write_text(json.dumps(content), "utf-8")
        for private in (path, self.password_file):
            private.chmod(0o600)

    def __call__(self, *arguments: Any) -> Ended:
        """Call it in this process."""
        return call_command(self.folder, *arguments)

    def start(
        self, *arguments: Any, environment: Optional[Dict[str, str]] = None, stdin: int = subprocess.DEVNULL
    ) -> "subprocess.Popen[str]":
        """Start the program with cron's environment and a Python that has the driver and nothing else."""
        if not self.program.exists():
            self.program.write_bytes(build_program("/usr/bin/python3"))
            driver = importlib.util.find_spec("psycopg2")
            assert driver is not None and driver.origin is not None
            site = pathlib.Path(driver.origin).parent.parent
            (self.folder / "driver").mkdir()
            for name in ("psycopg2", "psycopg2_binary.libs"):
                if (site / name).exists():
                    (self.folder / "driver" / name).symlink_to(site / name)
        given = {
            "PATH": "/usr/bin:/bin",
            "SHELL": "/bin/sh",
            "HOME": "/nonexistent",
            "LOGNAME": "backstop",
            "PYTHONPATH": str(self.folder / "driver"),
            **(environment or {}),
        }
        return subprocess.Popen(
            [sys.executable, "-S", "-s", str(self.program), *_with_folder(self.folder, arguments)],
            env=given,
            cwd="/",
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: Any, environment: Optional[Dict[str, str]] = None) -> Ended:
        """Run the program to its end."""
        with self.start(*arguments, environment=environment) as process:
            stdout, stderr = process.communicate(timeout=120)
        return Ended(process.returncode, stdout, stderr)
