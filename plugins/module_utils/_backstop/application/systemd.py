# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application as a systemd unit: what really runs; starting a release; stopping until no process is left.

``systemctl start`` returns status 0 for a program that crashes a moment later. A unit can also be active with the
former release, because its link WorkingDirectory= was resolved when it started. So every action is verified by what
systemd and the system report about the processes afterwards.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from ..base import processes
from ..base.environment_file import secrets_in
from ..base.errors import BackstopError, CouldNotVerify, Refused
from ..base.processes import Finished, find_program, redact
from ..base.remedies import Setting, remedy
from .system_processes import POLL_SECONDS, alive, wait_until

Runner = Callable[..., Finished]

SCOPES = ("system", "user")
_CALL_SECONDS = 60
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "NRestarts",
    "ControlGroup",
    "TriggeredBy",
    "ActiveEnterTimestampMonotonic",
)
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service")
#: Where the processes of a control group are listed: cgroup v2, hybrid, v1.
_CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_LOG_LINES = 5000
_SHOWN_LINES = 8
#: States in which the unit is meant to be stopped.
_DOWN = ("inactive", "failed")


@dataclass
class UnitState:
    """The state of the unit as systemd reports it, and the directory of its main process."""

    status: str
    sub_state: str = ""
    result: str = ""
    pid: int = 0
    restarts: int = 0
    cwd: str = ""
    group: str = ""
    triggers: List[str] = field(default_factory=list)
    started: int = 0

    @property
    def running(self) -> bool:
        return self.status not in (*_DOWN, "absent")

    def summary(self) -> Dict[str, Any]:
        """Status and directory, for the caller's before and after."""
        return dict(status=self.status, cwd=self.cwd or None)

    def facts(self) -> Dict[str, Any]:
        return dict(status=self.status, pid=self.pid, restarts=self.restarts, cwd=self.cwd)


class Unit:
    """A service unit.

    :param name: its name, with or without ``.service``
    :param scope: ``system``, or ``user`` for the service manager of the user who runs this
    :param run: runs a program, like processes.run
    """

    def __init__(self, name: str, scope: str = "system", run: Runner = processes.run) -> None:
        self.name = name if name.endswith(".service") else name + ".service"
        if not _UNIT.fullmatch(self.name) or self.name.startswith("-"):
            raise Refused("Invalid name of a service unit", found=repr(name))
        if scope not in SCOPES:
            raise Refused("Unknown scope of systemd", found=repr(scope), expected=" or ".join(SCOPES))
        self._user = scope == "user"
        self._run = run

    # Status

    def state(self) -> UnitState:
        """The current state; ``absent`` for a unit that systemd does not know. Starts nothing."""
        finished = self._systemctl(
            "show",
            "--property=" + ",".join(_PROPERTIES),
            self.name,
            check="systemd does not report the unit's properties",
        )
        said = dict(line.split("=", 1) for line in finished.stdout.splitlines() if "=" in line)
        if said.get("LoadState") in ("not-found", None):
            return UnitState("absent")
        if said["LoadState"] != "loaded":
            raise Refused(
                "systemd cannot use the unit",
                found="%s is %s" % (self.name, said["LoadState"]),
                expected="loaded",
                hint="systemctl status " + self.name,
            )
        pid = _number(said.get("MainPID"))
        return UnitState(
            status=said.get("ActiveState", "unknown"),
            sub_state=said.get("SubState", ""),
            result=said.get("Result", ""),
            pid=pid,
            restarts=_number(said.get("NRestarts")),
            cwd=self._cwd_of(pid),
            group=said.get("ControlGroup", ""),
            triggers=said.get("TriggeredBy", "").split(),
            started=_number(said.get("ActiveEnterTimestampMonotonic")),
        )

    def _cwd_of(self, pid: int) -> str:
        if not pid:
            return ""
        try:
            return os.readlink("/proc/%d/cwd" % pid)
        except (FileNotFoundError, ProcessLookupError):
            return ""  # it has just ended
        except PermissionError as error:
            raise CouldNotVerify(
                "The release in which the application runs cannot be determined",
                found="process %d of %s belongs to another user" % (pid, self.name),
                hint=remedy("run this as root or as the user of the unit (%s)", Setting.SYSTEMD_USER),
            ) from error

    def runs_in(self, cwd: str, stable: float = 0) -> bool:
        """True when the unit has run in this directory for some seconds without a restart."""
        place = os.path.realpath(cwd)
        first = found = self.state()
        deadline = time.monotonic() + stable
        while _same_run(first, found) and _up(found) and found.cwd == place:
            if _seconds_up(found) >= stable or time.monotonic() >= deadline:
                return True
            time.sleep(POLL_SECONDS)
            found = self.state()
        return False

    def _pids(self, group: str) -> List[int]:
        """Every process of the unit's control group, including children."""
        found: Set[int] = set()
        for root in _CGROUP_ROOTS if group else ():
            for folder, _folders, files in os.walk(root + group):
                if "cgroup.procs" in files:
                    with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as stream:
                        found.update(int(line) for line in stream if line.strip().isdigit())
        return sorted(found)

    # Actions

    def start(self, cwd: str, *, wait: float = 30, stable: float = 2) -> bool:
        """Run the unit in a directory.

        :param cwd: directory of the release, links resolved
        :param wait: seconds until it must be active
        :param stable: seconds for which it must stay active without a restart
        :returns: False when it runs there already
        """
        place = os.path.realpath(cwd)
        found = self._known()
        if self.runs_in(place, stable):
            return False
        before = self.log_cursor()
        if found.status == "failed":
            # A unit that reached its start limit is not started again before its counter is reset.
            self._systemctl("reset-failed", self.name, check="systemd could not forget the unit's failures")
        finished = self._systemctl("restart", self.name, timeout=wait + _CALL_SECONDS)
        if finished.status != 0:
            raise self._not_running(self.state(), place, before)
        self._wait_stable(place, before, wait, stable)
        return True

    def stop(self, *, wait: float = 30) -> bool:
        """Stop all processes of the unit.

        :returns: False when none ran
        """
        found = self.state()
        pids = self._pids(found.group)
        if not found.running and not pids:
            return False
        self._refuse_triggers(found)
        # Without waiting: the stop timeout is a setting of the unit and may be infinite.
        self._systemctl("stop", "--no-block", self.name, check="systemd could not stop the unit")
        if not wait_until(lambda: not self.state().running, wait):
            raise BackstopError(
                "The application did not stop",
                found="%s is %s after %g seconds, processes: %s"
                % (self.name, self.state().status, wait, ", ".join(map(str, filter(alive, pids))) or "none"),
                hint="check why, then run this again",
            )
        self._end_left(pids)
        return True

    def _end_left(self, pids: Sequence[int]) -> None:
        """Kill what a unit with KillMode=process leaves running: it would continue to write to the database."""
        if not any(map(alive, pids)):
            return
        self._systemctl("kill", "--signal=SIGKILL", self.name)
        if not wait_until(lambda: not any(map(alive, pids)), 5):
            raise BackstopError(
                "Processes of the application are still running",
                found="process %s of %s" % (", ".join(map(str, filter(alive, pids))), self.name),
                hint="end them, then run this again",
            )

    def _refuse_triggers(self, found: UnitState) -> None:
        """Refuse a unit with an active socket or timer: it would start the application during the downtime."""
        if not found.triggers:
            return
        # One word for each unit; the exit status only shows whether all of them are active.
        listed = self._systemctl("is-active", *found.triggers).stdout.split()
        active = [unit for unit, said in zip(found.triggers, listed) if said == "active"]
        if active:
            raise Refused(
                "The application would be started again by another unit",
                found=", ".join(active),
                expected="nothing that triggers " + self.name,
                hint="stop %s first" % " ".join(active),
            )

    def _known(self) -> UnitState:
        found = self.state()
        if found.status == "absent":
            raise Refused(
                "systemd knows no such unit",
                found=self.name,
                expected="a unit with WorkingDirectory= the link to the current release",
                hint=remedy("install the unit and run systemctl daemon-reload, or correct %s", Setting.SYSTEMD_UNIT),
            )
        return found

    # Waiting

    def _wait_stable(self, place: str, before: str, wait: float, stable: float) -> None:
        deadline = time.monotonic() + wait + stable
        first = found = self.state()
        while True:
            if found.status in _DOWN or found.restarts > first.restarts or time.monotonic() > deadline:
                raise self._not_running(found, place, before)
            if _up(found) and _seconds_up(found) >= stable:
                break
            time.sleep(POLL_SECONDS)
            found = self.state()
        if found.cwd != place:
            raise BackstopError(
                "systemd started the application in another directory",
                found=found.cwd or "none",
                expected=place,
                hint="set WorkingDirectory= of %s to the link to the current release" % self.name,
            )

    def _not_running(self, found: UnitState, place: str, before: str) -> BackstopError:
        lines = self.log_since(before, place)
        return BackstopError(
            "The application does not stay up",
            found="%s is %s (%s, %s) after %d restarts%s"
            % (
                self.name,
                found.status,
                found.sub_state,
                found.result,
                found.restarts,
                ": " + " | ".join(lines[-_SHOWN_LINES:]) if lines else "",
            ),
            expected="active without a restart",
            hint="the whole log: " + " ".join(["journalctl", *self._of_unit()]),
            details={"log": lines},
        )

    # Log

    def _of_unit(self) -> List[str]:
        return ["--user-unit=" + self.name] if self._user else ["--unit=" + self.name]

    def log_cursor(self) -> str:
        """The current end of the journal (cursor); empty for an empty journal."""
        finished = self._call(
            "journalctl",
            "--lines=1",
            "--output=json",
            "--output-fields=_PID",
            "--no-pager",
            check="The journal cannot be read",
        )
        for line in finished.stdout.splitlines():
            if line.startswith("{"):
                return str(json.loads(line)["__CURSOR"])
        return ""

    def log_since(self, cursor: str, cwd: str) -> List[str]:
        """The last lines that the application wrote after a cursor of the journal.

        :param cwd: directory of the release, whose secrets are hidden
        """
        start, secrets = ["--after-cursor=" + cursor] if cursor else [], self._secrets(cwd)
        finished = self._call(
            "journalctl",
            *self._of_unit(),
            *start,
            "--output=cat",
            "--no-pager",
            "--quiet",
            "--lines=%d" % _LOG_LINES,
            check="The journal cannot be read",
        )
        return [line for line in redact(finished.stdout, secrets).splitlines() if line.strip()]

    def _secrets(self, place: str) -> List[str]:
        """The application's environment files: the release's own, and those that systemd reads (systemd.exec(5))."""
        said = self._systemctl("show", "--property=EnvironmentFiles", self.name).stdout
        files = re.findall(r"^EnvironmentFiles=(.+?)(?: \(ignore_errors=\w+\))?$", said, re.MULTILINE)
        return [secret for path in [os.path.join(place, ".env"), *files] for secret in secrets_in(path)]

    # Programs

    def _systemctl(
        self, action: str, *arguments: str, check: Optional[str] = None, timeout: float = _CALL_SECONDS
    ) -> Finished:
        scope = ["--user"] if self._user else []
        return self._call(
            "systemctl", *scope, "--no-pager", "--no-ask-password", action, *arguments, check=check, timeout=timeout
        )

    def _call(
        self, program: str, *arguments: str, check: Optional[str] = None, timeout: float = _CALL_SECONDS
    ) -> Finished:
        path = find_program(program, ["/usr/bin", "/bin"])
        if path is None:
            raise Refused(
                program + " is not found",
                expected="a host with systemd",
                hint=remedy("%s is systemd here; pm2 and commands are the others", Setting.MANAGER),
            )
        return self._run([path, *arguments], environment=self._environment(), timeout=timeout, check=check)

    def _environment(self) -> Dict[str, str]:
        """XDG_RUNTIME_DIR, where a user's service manager listens. Only a login sets it; become and cron do not."""
        if not self._user or os.environ.get("XDG_RUNTIME_DIR"):
            return {}
        return {"XDG_RUNTIME_DIR": "/run/user/%d" % os.geteuid()}


def _number(text: Optional[str]) -> int:
    return int(text) if text and text.isdigit() else 0


def _same_run(one: UnitState, other: UnitState) -> bool:
    return (one.pid, one.restarts, one.started) == (other.pid, other.restarts, other.started)


def _up(found: UnitState) -> bool:
    return found.status == "active" and found.pid > 0


def _seconds_up(found: UnitState) -> float:
    return max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - found.started / 1e6)
