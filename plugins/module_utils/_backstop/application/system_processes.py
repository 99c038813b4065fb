# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes as the system reports them: whether they run, which groups they lead, and ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Callable, Iterator, List, Mapping, Sequence, Tuple

from ..base.processes import stat_fields

POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 5


def groups_led_by(pids: Sequence[int]) -> List[int]:
    """The process groups that these processes lead. A cluster worker is in its daemon's group, which must survive."""
    groups = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if pid and os.getpgid(pid) == pid:
                groups.append(pid)
    return groups


def end(pids: Sequence[int]) -> None:
    """End processes as pm2 does: SIGINT first, then SIGKILL."""
    for how in (signal.SIGINT, signal.SIGKILL):
        for pid in filter(alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        wait_until(lambda: not any(map(alive, pids)), _PATIENCE_SECONDS)


def end_groups(groups: Sequence[int]) -> None:
    """End all remaining processes of these process groups."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for group in filter(group_alive, groups):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, how)
        wait_until(lambda: not any(map(group_alive, groups)), _PATIENCE_SECONDS)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return stat_fields(pid)[:1] != ["Z"]


def group_alive(group: int) -> bool:
    """True while a process group has a running member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not os.path.isdir("/proc/self"):
        return True
    # Zombies still count as members; where process 1 is no init, they are never reaped.
    members = (stat_fields(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return any(stat[2:3] == [str(group)] and stat[0] != "Z" for stat in members)


def others_below(root: str, besides: Sequence[int]) -> List[Tuple[int, str, str]]:
    """Pid, program and directory of each process that works below a directory or was started from there.

    Only root can read the directories of other users' processes.

    :param besides: these and their children are left out, as are the calling process and pm2's daemon
    """
    parents = {int(name): int((stat_fields(int(name)) + ["", "0"])[1]) for name in _processes()}
    asking = {os.getpid(), *_ancestors(os.getpid(), parents)}
    place = os.path.join(os.path.realpath(root), "")
    found = []
    for pid in parents:
        cwd, program = _link(pid, "cwd"), _link(pid, "exe")
        if not (cwd + "/").startswith(place) and not program.startswith(place):
            continue
        name = _name(pid)
        known = pid in asking or set(besides) & {pid, *_ancestors(pid, parents)}
        if not known and not name.startswith("PM2 "):
            found.append((pid, name, cwd))
    return sorted(found)


def _processes() -> List[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc/self") else []


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    while parents.get(pid, 0) > 1:
        pid = parents[pid]
        yield pid


def _link(pid: int, name: str) -> str:
    try:
        return os.readlink("/proc/%d/%s" % (pid, name))
    except OSError:
        return ""


def _name(pid: int) -> str:
    """The program's short name. Its arguments are not shown, because one may be a secret."""
    try:
        with open("/proc/%d/comm" % pid, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""
