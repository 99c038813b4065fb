# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application under its process manager: one protocol, implemented for pm2, systemd and custom commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence

from ..base.errors import Refused
from ..base.progress import timestamp
from .pm2 import Outcome, Pm2, Process, read_logs, status_of, summary
from .releases import Releases
from .service_commands import Commands, ServiceCommands
from .systemd import Unit

STARTED, STOPPED, ABSENT = STATES = ("started", "stopped", "absent")
#: Minimum timeout of a command, in seconds; otherwise it may take as long as a whole start.
_LEAST_COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """The state of the application at one moment.

    :param status: the manager's status
    :param up: whether all processes run
    :param commits: the release of each process; None for a process outside of the releases
    :param processes: status, pid, restarts and directory of each; empty where the manager has no list
    :param others: other applications of the manager
    :param known: pids of these; None where the application's processes cannot be distinguished from others
    """

    status: str
    up: bool
    commits: Sequence[Optional[str]]
    processes: Sequence[Dict[str, Any]] = ()
    others: Sequence[str] = ()
    known: Optional[Sequence[int]] = ()


@dataclass(frozen=True)
class Change:
    """What was changed, or would be.

    :param before: status and directory before, as results and diffs show them
    :param after: the same afterwards
    :param processes: each of them afterwards; None where that is not known
    :param log_start: where the log ended before a start, for :meth:`Service.log_since`; None without a start
    """

    changed: bool
    before: Dict[str, Any]
    after: Dict[str, Any]
    processes: Optional[Sequence[Dict[str, Any]]] = None
    log_start: Any = None


class Service(Protocol):
    """An application under its manager."""

    def look(self, releases: Releases) -> Running:
        """The current state. Starts nothing, not even the manager."""

    def ensure(self, state: str, release: str, *, wait: float, effect: bool = True) -> Change:
        """Run the application in a release and nowhere else, or stop it.

        :param state: one of STATES
        :param release: directory of the release, links resolved; to stop, only commands need it
        :param wait: timeout in seconds
        :param effect: False for check mode: only report what would change
        :raises BackstopError: the state was not reached
        """

    def log_since(self, log_start: Any, release: str) -> List[str]:
        """The last lines of the log since a start, without the release's secrets.

        :param log_start: of the Change of that start
        """


def service_of(manager: str, options: Mapping[str, Optional[Mapping[str, Any]]]) -> Service:
    """The application under one of MANAGERS.

    :param options: the options of each manager, by its name; None for all but this one
    :raises Refused: the manager's options are missing, or those of another are given
    """
    others = sorted(name for name, given in options.items() if given is not None and name != manager)
    if others:
        raise Refused(
            "Options of another manager are given",
            found="%s, with manager=%s" % (", ".join(others), manager),
            expected="only those of %s" % manager,
        )
    given = options.get(manager)
    if given is None:
        raise Refused(
            "The options of the manager are missing",
            found="manager=%s without %s" % (manager, manager),
            expected="%s: a dictionary" % manager,
        )
    return _MANAGERS[manager](**given)


@dataclass
class _UnderPm2:
    name: str
    executable: str
    home: str
    node_bin_dir: Optional[str]
    ecosystem_file: str
    stable: float
    save: bool

    def __post_init__(self) -> None:
        self._pm2 = Pm2(self.executable, self.home, self.node_bin_dir)

    def look(self, releases: Releases) -> Running:
        found, others = self._pm2.processes_and_others(self.name)
        return Running(
            status_of(found),
            up=status_of(found) == "online",
            commits=[releases.commit_at(process.cwd) for process in found if process.running],
            processes=[process.facts() for process in found],
            others=["%s (pm2, pid %d) in %s" % (one.name, one.pid, one.cwd) for one in others if one.running],
            known=[one.pid for one in others],
        )

    def ensure(self, state: str, release: str, *, wait: float, effect: bool = True) -> Change:
        found = self._pm2.processes(self.name)
        if not effect:
            return self._predicted(state, release, found)
        sizes = self._pm2.log_sizes()
        outcome = self._bring_about(state, release, wait, found)
        if outcome.changed and self.save and state != STOPPED:
            self._pm2.save()
        logs = sorted({path for process in outcome.processes for path in process.logs})
        return Change(
            outcome.changed,
            summary(found),
            summary(outcome.processes),
            processes=[process.facts() for process in outcome.processes],
            log_start={path: sizes.get(path, 0) for path in logs} if outcome.changed and state == STARTED else None,
        )

    def _bring_about(self, state: str, release: str, wait: float, found: List[Process]) -> Outcome:
        if state == STARTED:
            return self._pm2.start(self.name, release, self.ecosystem_file, wait=wait, stable=self.stable, found=found)
        act = self._pm2.stop if state == STOPPED else self._pm2.delete
        return act(self.name, wait=wait, found=found)

    def _predicted(self, state: str, release: str, found: List[Process]) -> Change:
        before = summary(found)
        if state == STARTED:
            runs = self._pm2.runs_in(self.name, release, self.stable)
            return Change(not runs, before, dict(status="online", cwd=os.path.realpath(release)))
        gone = before["status"] == "absent"
        after = dict(status="absent", cwd=None) if gone or state == ABSENT else dict(before, status="stopped")
        return Change(after != before or bool(self._pm2.orphans(self.name, found)), before, after)

    def log_since(self, log_start: Any, release: str) -> List[str]:
        if not isinstance(log_start, dict):
            raise Refused("Invalid position in pm2's logs", found=repr(log_start), expected="sizes of files by path")
        return read_logs({str(path): int(size) for path, size in log_start.items()}, release)


@dataclass
class _UnderSystemd:
    unit: str
    scope: str
    stable: float

    def __post_init__(self) -> None:
        self._unit = Unit(self.unit, self.scope)

    def look(self, releases: Releases) -> Running:
        found = self._unit.state()
        return Running(
            found.status,
            up=found.status == "active" and found.pid > 0,
            commits=[releases.commit_at(found.cwd)] if found.pid else [],
            processes=[found.facts()] if found.pid else [],
        )

    def ensure(self, state: str, release: str, *, wait: float, effect: bool = True) -> Change:
        _refuse_absent(state)
        found = self._unit.state()
        before = found.summary()
        if not effect:
            if state == STARTED:
                runs = self._unit.runs_in(release, self.stable)
                return Change(not runs, before, dict(status="active", cwd=os.path.realpath(release)))
            return Change(found.running, before, dict(status="inactive", cwd=None) if found.running else before)
        log_start = self._unit.log_cursor() if state == STARTED else None
        if state == STARTED:
            changed = self._unit.start(release, wait=wait, stable=self.stable)
        else:
            changed = self._unit.stop(wait=wait)
        left = self._unit.state() if changed else found
        return Change(
            changed,
            before,
            left.summary(),
            processes=[left.facts()] if left.pid else [],
            log_start=log_start if changed else None,
        )

    def log_since(self, log_start: Any, release: str) -> List[str]:
        return self._unit.log_since(str(log_start), release)


class _ByCommands(Commands):
    def _of(self, release: str, timeout: float = 0) -> ServiceCommands:
        return ServiceCommands(release, self, max(timeout, _LEAST_COMMAND_SECONDS))

    def look(self, releases: Releases) -> Running:
        found = self._of(releases.link).state()
        # Without a commit in its output, an older release cannot be distinguished from the current one.
        commits: List[Optional[str]] = [*found.commits] or [releases.current()]
        return Running(found.status, up=found.running, commits=commits if found.running else [], known=None)

    def ensure(self, state: str, release: str, *, wait: float, effect: bool = True) -> Change:
        _refuse_absent(state)
        service = self._of(release, wait)
        found = service.state()
        before = found.summary()
        if not effect:
            if state == STARTED:
                after = dict(status="online", commits=[os.path.basename(service.release)])
                return Change(not service.runs_current(), before, after)
            return Change(found.running, before, dict(status="stopped", commits=[]))
        since = timestamp()
        changed = service.start(wait=wait) if state == STARTED else service.stop(wait=wait)
        after = service.state().summary() if changed else before
        return Change(changed, before, after, log_start=since if changed and state == STARTED else None)

    def log_since(self, log_start: Any, release: str) -> List[str]:
        return self._of(release).log_since(str(log_start))


def _refuse_absent(state: str) -> None:
    if state == ABSENT:
        raise Refused("Only pm2 can forget an application", found="state=absent", expected="started or stopped")


_MANAGERS: Dict[str, Callable[..., Service]] = {
    "pm2": _UnderPm2,
    "systemd": _UnderSystemd,
    "commands": _ByCommands,
}
MANAGERS = tuple(_MANAGERS)
