# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules that outlive the run that started them."""

from __future__ import annotations

import pathlib
import re
import signal


def is_told_to_end(pid: int) -> bool:
    """Whether SIGTERM is pending for a stopped process (proc(5), ShdPnd)."""
    status = pathlib.Path("/proc/%d/status" % pid).read_text("ascii")
    pending = int(re.findall(r"^ShdPnd:\s*(\w+)", status, re.M)[0], 16)
    return bool(pending & 1 << signal.SIGTERM - 1)
