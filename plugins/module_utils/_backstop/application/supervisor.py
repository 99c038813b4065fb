# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of the application, such as npm, under a supervisor: if we die, all their processes are killed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import List, Mapping, Sequence

from ..base.errors import Refused
from ..base.processes import find_program, gives_away

# Runs between us and the command. The kernel signals it when we die (more exactly, the thread that started it); it
# then kills its process group, which contains every process of the command. (Running asks the kernel to kill the
# supervisor itself when we die; here that becomes a signal that it can handle.) Both outputs are merged, in order.
_SOURCE = """
import ctypes, os, signal, subprocess, sys
def end(*_):
    os.killpg(0, signal.SIGKILL)
signal.signal(signal.SIGUSR1, end)
signal.signal(signal.SIGTERM, lambda *_: None)
if sys.platform.startswith("linux"):
    ctypes.CDLL(None).prctl(1, int(signal.SIGUSR1))
status = subprocess.call(sys.argv[1:], stdout=2)
sys.exit(status if status >= 0 else 128 - status)
"""


@dataclass(frozen=True)
class Surroundings:
    """What a command of the application runs in."""

    cwd: str
    environment: Mapping[str, str]
    #: of the environment
    secrets: Sequence[str] = ()


def supervised(command: Sequence[str], inside: Surroundings) -> List[str]:
    """The argument list that runs a command under supervision; its output goes to standard error.

    :raises Refused: as :func:`check_command`
    """
    check_command(command, inside)
    return [sys.executable, "-c", _SOURCE, *command]


def check_command(command: Sequence[str], inside: Surroundings) -> None:
    """:raises Refused: there is no such program, or the command would show a secret to every user of the host"""
    if not command:
        raise Refused("A command is empty", expected="a list such as [npm, run, build]")
    if any(gives_away(part, secret) for part in command for secret in inside.secrets):
        raise Refused(
            "A command contains a secret of the environment file",
            found=command[0] + " with a secret among its arguments, which everybody on the host can read",
            hint="let the command read it from the environment",
        )
    program = command[0]
    if os.path.dirname(program):
        known = os.access(os.path.join(inside.cwd, program), os.X_OK)
    else:
        known = find_program(program, inside.environment.get("PATH", "").split(os.pathsep)) is not None
    if not known:
        raise Refused("A program could not be started", found="program %s is not found" % program)
