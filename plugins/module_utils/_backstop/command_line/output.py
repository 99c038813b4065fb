# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where results, errors and progress are written: to the terminal, as JSON, or to syslog."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import syslog
import threading
import time
from typing import Any, Dict, List, Sequence, TextIO

from ..base.amounts import human_time
from ..base.errors import BackstopError
from ..base.progress import Progress, described

#: Seconds between lines of progress without a terminal; later a tenth of the time so far.
LINES_SECONDS = 5.0


class _Line:
    """The last line of a terminal, which is written over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown = False

    def show(self, text: str) -> None:
        with self._lock:
            self._shown = True
            _write(sys.stderr, "\r\x1b[K" + text[: max(20, shutil.get_terminal_size().columns - 1)])

    def clear(self) -> None:
        with self._lock:
            if self._shown:
                self._shown = False
                _write(sys.stderr, "\r\x1b[K")


_LINE = _Line()


def _write(stream: TextIO, text: str) -> None:
    """Write at once; a closed pipe does not interrupt the work."""
    with contextlib.suppress(BrokenPipeError):
        stream.write(text)
        stream.flush()


def say(text: str, *, error: bool = False) -> None:
    """Write a line, in place of one of progress."""
    clear_progress()
    _write(sys.stderr if error else sys.stdout, text + "\n")


def clear_progress() -> None:
    _LINE.clear()


class ShownProgress(Progress):
    """Shows progress on standard error: on a terminal as one line that changes, else as lines now and then."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal
        self._began = time.monotonic()
        self._next = 0.0

    def show(self, state: Dict[str, Any]) -> None:
        now = time.monotonic()
        if self._terminal:
            _LINE.show(described(state))
        elif now >= self._next:
            say("%s: %s" % (human_time(now - self._began), described(state)), error=True)
            self._next = now + max(LINES_SECONDS, (now - self._began) / 10)


def progress_for(*, asked: bool, quiet: bool) -> Progress:
    """What shows the progress of one call.

    :param asked: show it without a terminal too
    """
    terminal = sys.stderr.isatty()
    return ShownProgress(terminal=terminal) if asked or (terminal and not quiet) else Progress()


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
