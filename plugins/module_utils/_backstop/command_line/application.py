# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application on a host without Ansible: stopped and started by commands from the configuration."""

from __future__ import annotations

import dataclasses
from typing import Sequence

from ..base.errors import Refused
from ..base.processes import run

#: Placeholder for the commit of the release that the database belongs to.
RELEASE = "${commit}"


@dataclasses.dataclass(frozen=True)
class ApplicationCommands:
    """Argument lists. Each command exits with status 0 after success; repeating it changes nothing.

    :ivar start: starts the release that replaces RELEASE, and exits when it is healthy
    :ivar timeout: of each command, in seconds
    """

    stop: Sequence[str]
    start: Sequence[str]
    timeout: float = 600

    def stop_it(self) -> None:
        run(self.stop, check="The command that stops the application failed", timeout=self.timeout)

    def start_it(self, release: str) -> None:
        if not release:
            raise Refused(
                "The release to start is unknown",
                found="the backup or the operation names none",
                hint="start the release that belongs to the database",
            )
        argv = [argument.replace(RELEASE, release) for argument in self.start]
        run(argv, check="The command that starts the application failed", timeout=self.timeout)
