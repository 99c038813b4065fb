# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application that another manager runs, such as Docker or a platform: status, start and stop by commands.

The status command decides: status 0 means that the application runs, and it prints the commit of the running release
as one word. If it prints no commit, an older release cannot be detected; then only a start ensures the right one.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..base import processes
from ..base.environment_file import secrets_in
from ..base.errors import BackstopError, Refused
from ..base.processes import Finished, describe_failure, redact
from .git_mirror import FULL_COMMIT
from .system_processes import POLL_SECONDS

_WORD = re.compile(r"[^\s\"',;=:]+")
_PLACE = re.compile(r"\$\{([a-z_]*)\}")
PLACES = ("commit", "release", "since")


@dataclass
class ServiceState:
    """The result of the status command."""

    running: bool
    commits: List[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "online" if self.running else "stopped"

    def summary(self) -> Dict[str, Any]:
        return dict(status=self.status, commits=self.commits)


@dataclass(frozen=True)
class Commands:
    """Argument lists, in which ``${commit}`` and ``${release}`` stand for the current release's commit and directory,
    and in the log command ``${since}`` for the time of the start."""

    status: Sequence[str]
    start: Sequence[str] = ()
    stop: Sequence[str] = ()
    log: Sequence[str] = ()


class ServiceCommands:
    """The commands of one application.

    :param release: directory of the current release
    :param timeout: of a command, in seconds
    """

    def __init__(self, release: str, commands: Commands, timeout: float = 60) -> None:
        self.release = os.path.realpath(release)
        self._commands: Dict[str, Sequence[str]] = dataclasses.asdict(commands)
        self._timeout = timeout
        for name, argv in self._commands.items():
            _check_places(name, argv)
        self._secrets = secrets_in(os.path.join(self.release, ".env"))

    def state(self) -> ServiceState:
        finished = self._call("status")
        words = _WORD.findall(finished.stdout) if finished.status == 0 else []
        return ServiceState(finished.status == 0, sorted({word for word in words if FULL_COMMIT.fullmatch(word)}))

    def runs_current(self) -> bool:
        """True when the status command proves that this release runs, and no other."""
        found = self.state()
        return found.running and found.commits == [os.path.basename(self.release)]

    def start(self, *, wait: float = 30) -> bool:
        """Start the current release if it does not run.

        :returns: False when it runs already; where the status command prints no commit, it is always started
        """
        if self.runs_current():
            return False
        self._must("start", "The command that starts the application failed")
        found = self._wait(True, wait, "The application does not run after its start")
        others = set(found.commits) - {os.path.basename(self.release)}
        if others:
            raise BackstopError(
                "Another release than the current one runs after the start",
                found=", ".join(sorted(others)),
                expected=os.path.basename(self.release),
                hint="let the start command start the release ${commit} in ${release}",
            )
        return True

    def stop(self, *, wait: float = 30) -> bool:
        """Stop the application.

        :returns: False when it did not run
        """
        if not self.state().running:
            return False
        self._must("stop", "The command that stops the application failed")
        self._wait(False, wait, "The application did not stop")
        return True

    def log_since(self, since: str) -> List[str]:
        """The lines that the log command prints."""
        if not self._commands["log"]:
            return []
        finished = self._call("log", since=since)
        if finished.status != 0:
            raise BackstopError("The log command failed", found=self._said("log", finished))
        return redact(finished.stdout + finished.stderr, self._secrets).splitlines()

    def _wait(self, running: bool, wait: float, message: str) -> ServiceState:
        deadline = time.monotonic() + wait
        found = self.state()
        while found.running is not running:
            if time.monotonic() > deadline:
                raise BackstopError(
                    message,
                    found="the status command reports %s after %g seconds" % (found.status, wait),
                    hint="check why, then run this again",
                )
            time.sleep(POLL_SECONDS)
            found = self.state()
        return found

    def _must(self, name: str, message: str) -> None:
        finished = self._call(name)
        if finished.status != 0:
            raise BackstopError(message, found=self._said(name, finished))

    def _said(self, name: str, finished: Finished) -> str:
        said = redact(finished.stderr or finished.stdout, self._secrets)
        return describe_failure(self._commands[name][0], finished.status, said)

    def _call(self, name: str, since: str = "") -> Finished:
        argv = self._commands[name]
        if not argv:
            raise Refused("The application has no %s command" % name, expected="a list such as [docker, stop, shop]")
        values = {"commit": os.path.basename(self.release), "release": self.release, "since": since}
        cwd = self.release if os.path.isdir(self.release) else None
        return processes.run([_filled(part, values) for part in argv], cwd=cwd, timeout=self._timeout)


def _check_places(name: str, argv: Sequence[str]) -> None:
    known = PLACES if name == "log" else PLACES[:2]
    unknown = sorted({place for part in argv for place in _PLACE.findall(part)} - set(known))
    if unknown:
        raise Refused(
            "The %s command has an unknown placeholder" % name,
            found="${%s}" % unknown[0],
            expected=", ".join("${%s}" % place for place in known),
        )


def _filled(part: str, values: Mapping[str, Optional[str]]) -> str:
    return _PLACE.sub(lambda match: values.get(match.group(1)) or "", part)
