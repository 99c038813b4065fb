# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes under pm2: what really runs; starting a release; stopping until no process is left.

pm2's exit status is not reliable: it is 0 for an application that crashes at once and for one that never becomes ready.
So every action is verified by what its daemon and the system report about the processes afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..base import processes
from ..base.durable_files import file_error, make_private_directory
from ..base.environment_file import secrets_in
from ..base.errors import BackstopError, Refused
from ..base.processes import Finished, redact
from .commands import search_path
from .system_processes import POLL_SECONDS, alive, end, end_groups, groups_led_by, wait_until

Runner = Callable[..., Finished]

#: Maximum length of a Unix socket's path (sun_path), without the closing NUL.
LONGEST_SOCKET_PATH = 107
_CALL_SECONDS = 60
_ECOSYSTEM_ENDINGS = (".config.js", ".config.cjs", ".config.mjs", ".json", ".yml", ".yaml")
_MISREAD_IN_HOME = re.compile(r"[\s#?]")
#: The only variables that the application inherits; the others come from its ecosystem and environment files.
_INHERITED = ("LANG", "TZ", "TMPDIR")
_LOG_TAIL = 2000
_LOG_MOST = 1 << 20


@dataclass
class Process:
    """One process of pm2. pm2's own record is not kept, because it holds the application's whole environment."""

    pm_id: int
    name: str
    status: str
    pid: int
    restarts: int
    started_ms: int
    cwd: str
    logs: List[str]

    @property
    def running(self) -> bool:
        return self.status != "stopped"

    @property
    def identity(self) -> Tuple[int, int, int]:
        """Changes with each restart."""
        return (self.pm_id, self.pid, self.restarts)

    @property
    def seconds_up(self) -> float:
        return max(0.0, time.time() - self.started_ms / 1000)

    def facts(self) -> Dict[str, Any]:
        return dict(pm_id=self.pm_id, status=self.status, pid=self.pid, restarts=self.restarts, cwd=self.cwd)


@dataclass(frozen=True)
class Outcome:
    """Whether something was changed, and the processes afterwards. Each query to pm2 takes a third of a second."""

    changed: bool
    processes: List[Process]

    def __bool__(self) -> bool:
        return self.changed


def status_of(found: Sequence[Process]) -> str:
    """One status for all processes of a name: absent, their common status, or mixed."""
    statuses = sorted({process.status for process in found})
    if not statuses:
        return "absent"
    return statuses[0] if len(statuses) == 1 else "mixed"


def summary(found: Sequence[Process]) -> Dict[str, Any]:
    """Status and directory, for the caller's before and after."""
    places = sorted({process.cwd for process in found})
    return dict(status=status_of(found), cwd=places[0] if len(places) == 1 else ", ".join(places) or None)


class Pm2:
    """A pm2 daemon and its processes.

    :param executable: path of pm2
    :param home: PM2_HOME; created when first needed
    :param node_bin_dir: directory of the Node.js that runs pm2 and the application
    :param run: runs a program, like processes.run
    """

    def __init__(
        self, executable: str, home: str, node_bin_dir: Optional[str] = None, run: Runner = processes.run
    ) -> None:
        self._executable = executable
        self.home = os.path.normpath(home)
        self._node_bin_dir = node_bin_dir
        self._run = run
        self._check_home(home)

    def _check_home(self, home: str) -> None:
        if not os.path.isabs(home):
            raise Refused("PM2_HOME must be an absolute path", found=repr(home))
        if _MISREAD_IN_HOME.search(home):
            raise Refused(
                "PM2_HOME contains a character with which pm2's daemon never starts to listen",
                found=repr(home),
                expected="a path without spaces, # and ?",
            )
        size = len(os.fsencode(self._socket))
        if size > LONGEST_SOCKET_PATH:
            raise Refused(
                "PM2_HOME is too long: pm2 keeps its sockets there",
                found="%s has %d bytes" % (self._socket, size),
                expected="at most %d bytes, so a PM2_HOME of at most %d"
                % (LONGEST_SOCKET_PATH, LONGEST_SOCKET_PATH - len("/rpc.sock")),
                hint="choose a shorter directory, such as one below /var/lib",
            )
        if os.path.isdir(self.home) and os.stat(self.home).st_uid != os.geteuid():
            raise Refused(
                "PM2_HOME belongs to another user",
                found="%s belongs to %s" % (self.home, _user_name(os.stat(self.home).st_uid)),
                expected="a directory of " + _user_name(os.geteuid()),
                hint="run this as the user of the application",
            )

    @property
    def _socket(self) -> str:
        return os.path.join(self.home, "rpc.sock")

    # Status

    def daemon_runs(self) -> bool:
        """True when a daemon answers. Any pm2 command would start one."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(self._socket)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError as error:
                raise file_error("The daemon of pm2 cannot be reached", self._socket, error) from error
        return True

    def processes(self, name: str) -> List[Process]:
        """The processes of an application; none when no daemon runs. Starts nothing."""
        return self.processes_and_others(name)[0]

    def processes_and_others(self, name: str) -> Tuple[List[Process], List[Process]]:
        """The processes of an application, and all others of this daemon."""
        _check_name(name)
        listed = self._list() if self.daemon_runs() else []
        return (
            [process for process in listed if process.name == name],
            [process for process in listed if process.name != name],
        )

    def _list(self) -> List[Process]:
        finished = self._pm2("jlist", check="pm2 could not list its processes")
        # A daemon of another version, or a first start, prints text before the list.
        for line in reversed(finished.stdout.splitlines()):
            with contextlib.suppress(ValueError):
                listed = json.loads(line)
                if isinstance(listed, list):
                    return [_process(entry) for entry in listed if isinstance(entry, dict)]
        raise BackstopError("pm2 did not answer with a list of processes", found="%d bytes" % len(finished.stdout))

    def orphans(self, name: str, known: Sequence[Process]) -> List[int]:
        """Pids of processes of this name that survived their daemon, so that no daemon manages them.

        pm2 leaves a pid file; the environment shows whether it is still the same process.

        :param known: the result of :meth:`processes`
        """
        pattern = re.compile(re.escape(name.replace(" ", "-")) + r"-\d+\.pid")
        folder = os.path.join(self.home, "pids")
        try:
            files = [os.path.join(folder, file) for file in os.listdir(folder) if pattern.fullmatch(file)]
        except FileNotFoundError:
            return []
        pids = {_read_pid(file) for file in files} - {process.pid for process in known}
        return sorted(pid for pid in pids if pid and alive(pid) and self._is_ours(pid, name))

    def _is_ours(self, pid: int, name: str) -> bool:
        try:
            with open("/proc/%d/environ" % pid, "rb") as stream:
                settings = stream.read().split(b"\0")
        except OSError:
            return False  # ended, or of another user
        wanted = (b"PM2_HOME=" + os.fsencode(self.home), b"name=" + os.fsencode(name))
        return all(setting in settings for setting in wanted)

    # Actions

    def start(
        self,
        name: str,
        cwd: str,
        ecosystem_file: str,
        *,
        wait: float = 30,
        stable: float = 2,
        found: Optional[List[Process]] = None,
    ) -> Outcome:
        """Run an application in a directory, and nowhere else.

        pm2 keeps the old directory and environment on restart, so an application in another directory is deleted first.

        :param cwd: directory of the release, links resolved
        :param ecosystem_file: pm2's description of the application, relative to cwd
        :param wait: seconds until it must be online
        :param stable: seconds for which it must stay online without a restart
        :param found: the latest result of processes()
        """
        cwd = os.path.realpath(cwd)
        found = self.processes(name) if found is None else found
        if self._runs_in(name, cwd, stable, found):
            return Outcome(False, found)
        path = os.path.relpath(_check_ecosystem(cwd, ecosystem_file), cwd)
        self._end("delete", name, found, wait)
        before = self.log_sizes()
        # Start the daemon separately: the first command in a PM2_HOME prints a banner.
        make_private_directory(self.home)
        if not self.daemon_runs():
            self._pm2("ping", check="pm2 could not start its daemon")
        # By file name: pm2 detects the file type by ".json" or ".yml" anywhere in its argument.
        finished = self._pm2("start", path, "--only", name, "--cwd", cwd, timeout=wait + _CALL_SECONDS, cwd=cwd)
        found = self.processes(name)
        if not found:
            said = redact(finished.stderr + finished.stdout, _secrets_in(cwd))
            raise BackstopError(
                "pm2 did not start the application",
                found=processes.describe_failure(self._executable, finished.status, said),
                expected="an application named %s in %s" % (name, os.path.join(cwd, path)),
            )
        elsewhere = sorted({process.cwd for process in found} - {cwd})
        if elsewhere:
            raise BackstopError(
                "pm2 started the application in another directory",
                found=elsewhere[0],
                expected=cwd,
                hint="remove `cwd` from " + os.path.join(cwd, path),
            )
        return Outcome(True, self._wait_stable(name, found, wait, stable, before))

    def runs_in(self, name: str, cwd: str, stable: float = 0) -> bool:
        """True when all processes of the application are online in this directory, and there are no orphans.

        :param stable: their minimum uptime in seconds; a process in a crash loop is "online" most of the time
        """
        return self._runs_in(name, os.path.realpath(cwd), stable, self.processes(name))

    def _runs_in(self, name: str, place: str, stable: float, found: List[Process]) -> bool:
        first = [process.identity for process in found]
        while found and [process.identity for process in found] == first:
            if any(process.status != "online" or process.cwd != place for process in found):
                return False
            if all(process.seconds_up >= stable for process in found):
                return not self.orphans(name, found)
            time.sleep(POLL_SECONDS)
            found = self.processes(name)
        return False

    def stop(self, name: str, *, wait: float = 30, found: Optional[List[Process]] = None) -> Outcome:
        """Stop all processes of the application.

        :param found: the latest result of processes()
        """
        found = self.processes(name) if found is None else found
        changed = self._end("stop", name, [process for process in found if process.running], wait, found)
        left = self.processes(name) if changed else found
        if any(process.running for process in left):
            raise BackstopError("pm2 did not stop the application", found="%s is %s" % (name, status_of(left)))
        return Outcome(changed, left)

    def delete(self, name: str, *, wait: float = 30, found: Optional[List[Process]] = None) -> Outcome:
        """Delete the application from pm2 and stop all its processes.

        :param found: the latest result of processes()
        """
        changed = self._end("delete", name, self.processes(name) if found is None else found, wait)
        left = self.processes(name) if changed else []
        if left:
            raise BackstopError("pm2 did not delete the application", found="%s is %s" % (name, status_of(left)))
        return Outcome(changed, left)

    def _end(
        self, action: str, name: str, found: Sequence[Process], wait: float, known: Optional[Sequence[Process]] = None
    ) -> bool:
        """Let pm2 stop or delete processes, and verify that they and their children have ended."""
        orphans = self.orphans(name, found if known is None else known)
        pids = [process.pid for process in found] + orphans
        groups = groups_led_by(pids)
        deadline = time.monotonic() + wait
        if found:
            # By id: pm2 would read a name as a path, a pattern or "all" where possible.
            self._pm2(action, *[str(process.pm_id) for process in found], timeout=wait + _CALL_SECONDS)
        end(orphans)
        if not wait_until(lambda: not any(map(alive, pids)), deadline - time.monotonic()):
            raise BackstopError(
                "The application did not stop",
                found="process %s of %s is still running" % (", ".join(map(str, filter(alive, pids))), name),
                hint="check why, then run this again",
            )
        # Children that the application left running belong to it: they would continue to write to the database.
        end_groups(groups)
        return bool(found or orphans)

    def save(self) -> bool:
        """Save the process list for the next boot (pm2 save) if one was saved before.

        :returns: False when no list was saved before: then nothing is started at boot
        """
        if not os.path.exists(os.path.join(self.home, "dump.pm2")):
            return False
        self._pm2("save", "--force", check="pm2 could not save its list of processes")
        return True

    def _pm2(
        self,
        *arguments: str,
        check: Optional[str] = None,
        timeout: float = _CALL_SECONDS,
        cwd: Optional[str] = None,
    ) -> Finished:
        program = processes.find_program(self._executable, [self._node_bin_dir] if self._node_bin_dir else [])
        if program is None:
            raise Refused("pm2 is not found", found="no program " + self._executable, hint="npm install --global pm2")
        # pm2 passes the caller's whole environment to the application and saves it, so the command gets a minimal one.
        user = pwd.getpwuid(os.geteuid())
        settings = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        settings.update(
            PATH=search_path(self._node_bin_dir),
            HOME=os.environ.get("HOME") or user.pw_dir,
            USER=user.pw_name,
            LOGNAME=user.pw_name,
            PM2_HOME=self.home,
            PM2_DISCRETE_MODE="true",
        )
        assignments = ["%s=%s" % item for item in sorted(settings.items())]
        # In its home: a daemon must not run in a directory that Ansible removes afterwards.
        return self._run(
            ["env", "-i", *assignments, program, *arguments], cwd=cwd or self.home, timeout=timeout, check=check
        )

    # Waiting

    def _wait_stable(
        self, name: str, found: List[Process], wait: float, stable: float, before: Dict[str, int]
    ) -> List[Process]:
        deadline = time.monotonic() + wait + stable
        while True:
            restarted = any(process.restarts for process in found)
            given_up = any(process.status in ("errored", "stopped") for process in found)
            if restarted or given_up or not found or time.monotonic() > deadline:
                raise self._not_running(name, found, before)
            if all(process.status == "online" for process in found):
                if all(process.seconds_up >= stable for process in found):
                    return found
                _stay_up([process.pid for process in found], stable)
            else:
                time.sleep(POLL_SECONDS)
            found = self.processes(name)

    def _not_running(self, name: str, found: Sequence[Process], before: Dict[str, int]) -> BackstopError:
        restarts = sum(process.restarts for process in found)
        secrets = _secrets_in(found[0].cwd) if found else []
        lines: List[str] = []
        for path in sorted({path for process in found for path in process.logs}):
            lines += read_log(path, before.get(path, 0), secrets)
        return BackstopError(
            "The application does not stay up",
            found="%s is %s after %d restarts%s"
            % (name, status_of(found), restarts, ": " + " | ".join(_said_last(lines)) if lines else ""),
            expected="online without a restart",
            hint="see its log in pm2, " + found[0].logs[0] if found and found[0].logs else None,
            details={"log": lines},
        )

    def log_sizes(self) -> Dict[str, int]:
        """Sizes of the log files, to find later what was written since."""
        folder = os.path.join(self.home, "logs")
        with contextlib.suppress(FileNotFoundError):
            return {entry.path: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
        return {}


def _stay_up(pids: Sequence[int], seconds: float) -> None:
    """Watch processes for a time, or until one of them ends. Asks the system, because pm2 is slower."""
    wait_until(lambda: not all(map(alive, pids)), seconds)


def _process(entry: Dict[str, Any]) -> Process:
    settings = entry.get("pm2_env") or {}
    pid = int(entry.get("pid") or 0)
    logs = [settings.get("pm_err_log_path"), settings.get("pm_out_log_path")]
    return Process(
        pm_id=int(entry.get("pm_id", settings.get("pm_id", -1))),
        name=str(entry.get("name") or settings.get("name") or ""),
        status=str(settings.get("status") or "unknown"),
        pid=pid,
        restarts=int(settings.get("restart_time") or 0),
        started_ms=int(settings.get("pm_uptime") or 0),
        cwd=_real_cwd(str(settings.get("pm_cwd") or ""), pid),
        logs=[log for log in logs if isinstance(log, str) and log != "/dev/null"],
    )


def _real_cwd(recorded: str, pid: int) -> str:
    """Working directory of a process, from the system: the link that it was started through may have changed since."""
    real = os.path.realpath(recorded) if recorded else ""
    if real != os.path.normpath(recorded or ".") and pid:
        with contextlib.suppress(OSError):
            return os.readlink("/proc/%d/cwd" % pid)
    return real


def _check_name(name: str) -> None:
    # pm2 reads these as all processes, a process id, a pattern, an option or several names.
    if not name or name == "all" or name.isdigit() or name[0] in "-/" or "," in name or "\0" in name:
        raise Refused("Invalid name of a pm2 process", found=repr(name))


def _check_ecosystem(cwd: str, ecosystem_file: str) -> str:
    path = os.path.join(cwd, ecosystem_file)
    if not path.endswith(_ECOSYSTEM_ENDINGS):
        raise Refused(
            "pm2 would run this file as a program",
            found=repr(ecosystem_file),
            expected="a name that ends in " + ", ".join(_ECOSYSTEM_ENDINGS),
        )
    if not os.path.isfile(path):
        raise Refused("The release has no such ecosystem file", found="no file " + path)
    return path


def _secrets_in(cwd: str) -> List[str]:
    return secrets_in(os.path.join(cwd, ".env"))


def read_log(path: str, start: int, secrets: Sequence[str], most: int = _LOG_TAIL) -> List[str]:
    """The last lines of a log after a position, without secrets.

    :param most: maximum number of bytes to read from the end
    """
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            begin = start if start <= size else 0
            cut = size - most > begin
            stream.seek(size - most if cut else begin)
            text = redact(stream.read().decode(errors="replace"), secrets)
    except OSError:
        return []
    # Of a secret that is cut off at the front, the rest cannot be recognised.
    text = text[max(map(len, secrets), default=0) if cut else 0 :]
    return [line for line in text.splitlines() if line.strip()]


def _said_last(lines: Sequence[str]) -> List[str]:
    """The last distinct lines: a crash loop repeats the same lines."""
    return list(dict.fromkeys(reversed(lines)))[:5][::-1]


def read_logs(positions: Mapping[str, int], cwd: str) -> List[str]:
    """The lines after these positions of log files.

    :param cwd: directory of the release, whose secrets are hidden
    """
    secrets = _secrets_in(cwd)
    return [line for path, size in sorted(positions.items()) for line in read_log(path, size, secrets, _LOG_MOST)]


def _read_pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read().strip() or 0)
    except (OSError, ValueError):
        return 0


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return "user number %d" % number
