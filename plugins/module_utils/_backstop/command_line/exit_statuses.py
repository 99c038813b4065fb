# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exit statuses of the command: one for each kind of outcome, so that callers need not parse texts."""

from __future__ import annotations

from ..base.errors import BackstopError, CouldNotVerify, Locked, NotCopied, Refused

OK = 0
FAILED = BackstopError.exit_status
USAGE = 2
COULD_NOT_VERIFY = CouldNotVerify.exit_status
TOO_OLD = 4
LOCKED = Locked.exit_status
NOT_COPIED = NotCopied.exit_status

#: The meaning of each, for the help and for the tests that go through all of them.
MEANINGS = {
    OK: "done, and as it should be",
    FAILED: "it failed, or the last run did; nothing half done is listed",
    USAGE: "the command line or the configuration is invalid; nothing was started",
    COULD_NOT_VERIFY: "a check could not be evaluated (no server, no programs, no right): not known to be good",
    TOO_OLD: "the newest verified backup is older than allowed, or there is none",
    LOCKED: "another run or an operation is working on this database; nothing was started",
    NOT_COPIED: "the backups are as they should be, their second copies are not",
}
#: The corresponding Nagios statuses: OK, WARNING, CRITICAL, UNKNOWN.
NAGIOS = {OK: 0, FAILED: 2, USAGE: 3, COULD_NOT_VERIFY: 3, TOO_OLD: 2, LOCKED: 3, NOT_COPIED: 1}
NAGIOS_WORDS = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}


class UsageError(Refused):
    """The command line or a configuration is wrong."""

    exit_status = USAGE


class TooOld(BackstopError):
    """There is no verified backup that is recent enough."""

    exit_status = TOO_OLD
