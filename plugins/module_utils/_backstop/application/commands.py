# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the commands that build a release; a failure reports the end of their output."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Optional, Sequence

from ..base.errors import BackstopError
from ..base.processes import Running, describe_failure
from .supervisor import Surroundings, supervised

#: A release must be readable by other users than the one that builds it: another user may run Prisma in it.
RELEASE_UMASK = 0o022


def search_path(node_bin_dir: Optional[str]) -> str:
    """PATH with the configured Node.js first."""
    path = os.environ.get("PATH") or os.defpath
    return node_bin_dir + os.pathsep + path if node_bin_dir else path


def run_command(
    argv: Sequence[str],
    what: str,
    inside: Surroundings,
    *,
    timeout: Optional[float] = None,
    keep_open: Sequence[int] = (),
) -> float:
    """Run a command to its end and return its duration in seconds.

    :param what: the error's message if it fails
    :param keep_open: descriptors for the child, such as that of a lock
    """
    started = time.monotonic()
    with Running(
        supervised(argv, inside),
        environment=inside.environment,
        cwd=inside.cwd,
        stdout=subprocess.DEVNULL,
        secrets=inside.secrets,
        keep_open=keep_open,
        umask=RELEASE_UMASK,
    ) as program:
        status = program.wait(timeout)
        if status != 0:
            raise BackstopError(what, found=describe_failure(argv[0], status, program.stderr_text))
    return time.monotonic() - started
