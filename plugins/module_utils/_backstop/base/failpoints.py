# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Named points where a test kills this process, to prove that the next run completes an interrupted one.

``BACKSTOP_FAILPOINT=name`` kills the process with SIGKILL when it reaches that point; ``name#3`` at the third time.
``BACKSTOP_FAILPOINT_SIGNAL=19`` sends another signal: SIGINT is Ctrl-C, SIGSTOP halts the process.
``BACKSTOP_FAILPOINT_LOG=file`` appends each name that is reached, for tests that go through all of them.
"""

from __future__ import annotations

import os
import signal
from typing import Dict

_counts: Dict[str, int] = {}


def reach(name: str) -> None:
    """Pass the failpoint of this name."""
    log = os.environ.get("BACKSTOP_FAILPOINT_LOG")
    wanted = os.environ.get("BACKSTOP_FAILPOINT")
    if not log and not wanted:
        return
    _counts[name] = _counts.get(name, 0) + 1
    if log:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(name + "\n")
    if wanted in (name, "%s#%d" % (name, _counts[name])):
        os.kill(os.getpid(), int(os.environ.get("BACKSTOP_FAILPOINT_SIGNAL", signal.SIGKILL)))
