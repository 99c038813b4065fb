# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The child processes of this process: run one in the foreground, end all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_in_foreground(argv: Sequence[str], environment: Mapping[str, str], cwd: Path) -> int:
    """Run a program on our terminal and wait for it. It receives the terminal's Ctrl-C itself."""
    child = subprocess.Popen(argv, env=dict(environment), cwd=cwd)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)


def of_this_process() -> list[int]:
    """Process ids of our children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may contain anything; the state and the parent follow the last parenthesis.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def end_all() -> None:
    """Ask our children to end, with the process groups that they lead."""
    for pid in of_this_process():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGTERM)
            else:
                os.kill(pid, signal.SIGTERM)
