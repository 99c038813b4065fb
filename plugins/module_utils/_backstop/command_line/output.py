# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where results, errors and progress are written: to the terminal, as JSON, or to syslog."""

from __future__ import annotations

import contextlib
import json
import sys
import syslog
from typing import Any, Dict, List, Sequence

from ..base.errors import BackstopError
from ..base.progress import Progress


def say(text: str, *, error: bool = False) -> None:
    """Write a line at once; a closed pipe does not interrupt the work."""
    stream = sys.stderr if error else sys.stdout
    with contextlib.suppress(BrokenPipeError):
        stream.write(text + "\n")
        stream.flush()


class TerminalProgress(Progress):
    """Prints each phase on a terminal; prints nothing elsewhere."""

    def phase(self, name: str, **facts: Any) -> None:
        if sys.stderr.isatty():
            told = " ".join(str(value) for value in facts.values())
            say("... %s %s" % (name, told), error=True)


class Output:
    """The output options of one run."""

    def __init__(self, *, as_json: bool = False, to_syslog: bool = False, quiet: bool = False) -> None:
        self._json = as_json
        self._quiet = quiet
        self._syslog = to_syslog
        if to_syslog:
            syslog.openlog("backstop", syslog.LOG_PID, syslog.LOG_DAEMON)

    def _write(self, text: str, *, error: bool = False) -> None:
        if self._syslog:
            for line in text.splitlines():
                syslog.syslog(syslog.LOG_ERR if error else syslog.LOG_INFO, line)
        else:
            say(text, error=error)

    def result(self, value: Any, lines: Sequence[str], *, good: bool = True) -> None:
        """The result.

        :param value: for --json
        :param lines: as readable text
        :param good: a good result, which --quiet hides
        """
        if self._json:
            self._write(json.dumps(value, indent=1, sort_keys=True))
        elif not (self._quiet and good):
            self._write("\n".join(lines), error=self._syslog and not good)

    def warn(self, text: str) -> None:
        self._write("backstop: warning: " + text, error=True)

    def failure(self, error: BackstopError) -> None:
        self._write("backstop: %s (exit status %d)" % (error, error.exit_status), error=True)
        if self._json and not self._syslog:
            value: Dict[str, Any] = {
                "error": type(error).__name__,
                "message": error.message,
                "found": error.found,
                "expected": error.expected,
                "hint": error.hint,
                "exit_status": error.exit_status,
            }
            say(json.dumps(value, indent=1, sort_keys=True))


def table(rows: Sequence[Sequence[str]]) -> List[str]:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
