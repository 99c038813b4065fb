# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program that runs an application in the background, as Docker or a platform does.

SCRIPT status                            prints the commit that runs; status 1 when none does
SCRIPT silent                            the same, but prints nothing
SCRIPT run COMMIT [DIRECTORY PROGRAM..]  ends what runs and runs a program (default: one that sleeps) for a commit
SCRIPT noisy COMMIT                      the same, and the program keeps the pipes of the caller open
SCRIPT stop                              ends what runs
SCRIPT fail WORDS                        fails with these words
SCRIPT log SINCE                         prints two lines
"""

from __future__ import annotations

import pathlib
import sys

_SOURCE = """#!%s
import os, pathlib, signal, subprocess, sys, time
state = pathlib.Path(__file__ + ".state")
pid, commit = state.read_text().split() if state.exists() else ("0", "")

def running():
    try:
        return pid != "0" and ") Z" not in pathlib.Path("/proc", pid, "stat").read_text()
    except OSError:
        return False

action, words = sys.argv[1], sys.argv[2:]
if action in ("run", "noisy", "stop") and running():
    os.kill(int(pid), signal.SIGKILL)
    while running():
        time.sleep(0.01)
if action in ("run", "noisy"):
    program = words[2:] or [sys.executable, "-c", "import time; time.sleep(600)"]
    output = None if action == "noisy" else subprocess.DEVNULL
    child = subprocess.Popen(
        program, cwd=(words[1:2] or [None])[0], start_new_session=True, stdin=subprocess.DEVNULL, stdout=output,
        stderr=output,
    )
    state.write_text("%%d %%s" %% (child.pid, words[0]))
elif action == "status":
    print("up since today: %%s, healthy" %% commit)
    sys.exit(0 if running() else 1)
elif action == "silent":
    sys.exit(0 if running() else 1)
elif action == "fail":
    sys.exit("cannot connect with %%s" %% words[0])
elif action == "log":
    print("since %%s\\nError: no table" %% words[0])
"""


def write(folder: pathlib.Path) -> pathlib.Path:
    """Write the script into a folder."""
    path = folder / "service"
    path.write_text(_SOURCE % sys.executable, "utf-8")
    path.chmod(0o700)
    return path


def pid(script: pathlib.Path) -> int:
    """The process that it started last."""
    return int(pathlib.Path(str(script) + ".state").read_text("utf-8").split()[0])
