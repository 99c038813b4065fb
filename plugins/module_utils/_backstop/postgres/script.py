# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading pg_restore's script, and running it in a transaction of our own.

Its BEGIN and COMMIT are skipped: the caller commits after pg_restore succeeded and everything was compared. A truncated
script has no COMMIT, and is refused.
"""

from __future__ import annotations

import re
from typing import IO, List, Optional

from ..base.errors import BackstopError
from .connection import Session, database_errors

_COPY = re.compile(rb"COPY .* FROM stdin;\n")
_DATA_COMMENT = re.compile(rb"-- Data for Name: .*; Type: TABLE DATA; ")
_END_OF_DATA = b"\\.\n"
#: What follows the script's COMMIT.
_END = re.compile(rb"\nCOMMIT;\n(?:\s|--[^\n]*\n|\\unrestrict [^\n]*\n)*\Z")
#: The statements of large objects can be run one by one.
_LARGE_OBJECT = (b"SELECT pg_catalog.lo", b");\n")
_FLUSH_BYTES = 1 << 20


class CopyData:
    """The rows of one COPY of a script, as a file."""

    def __init__(self, script: IO[bytes]) -> None:
        self._script = script
        self._rest = b""
        self.ended = False

    def _line(self) -> bytes:
        if self.ended:
            return b""
        line = self._script.readline()
        if line == _END_OF_DATA:
            self.ended = True
            return b""
        if not line.endswith(b"\n"):
            raise BackstopError("The archive's script ends in the middle of a table's rows", found="no end mark")
        return line

    def readline(self, size: int = -1) -> bytes:
        return self.read(size) if self._rest else self._line()

    def read(self, size: int = -1) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            line = self._line()
            if not line:
                break
            parts.append(line)
            length += len(line)
        data = b"".join(parts)
        if size < 0:
            size = len(data)
        self._rest = data[size:]
        return data[:size]


def run_script(session: Session, script: IO[bytes]) -> None:
    """Run a script of start_script() in the session's open transaction.

    :raises BackstopError: a statement failed, or the script is incomplete
    """
    pending: List[bytes] = []
    size = 0
    is_data = False
    started = False
    while True:
        line = script.readline()
        if not line:
            break
        if not started:
            # Before BEGIN there are comments and, in newer versions, \restrict.
            started = line == b"BEGIN;\n"
            continue
        if _DATA_COMMENT.match(line):
            is_data = True
        if is_data and _COPY.match(line):
            _execute(session, b"".join(pending))
            pending, size, is_data = [], 0, False
            _copy(session, line.rstrip(), CopyData(script))
            continue
        pending.append(line)
        size += len(line)
        if size > _FLUSH_BYTES and line.startswith(_LARGE_OBJECT[0]) and line.endswith(_LARGE_OBJECT[1]):
            _execute(session, b"".join(pending))
            pending, size = [], 0
    text = b"".join(pending)
    end = _last_commit(text)
    if not started or end is None:
        raise BackstopError("The archive's script is incomplete", found="no COMMIT at its end")
    _execute(session, text[:end])


def _copy(session: Session, statement: bytes, data: CopyData) -> None:
    with database_errors(), session.cursor() as cursor:
        cursor.copy_expert(statement, data)
    _require_end(data)


def _require_end(data: CopyData) -> None:
    if data.read(1) or not data.ended:
        raise BackstopError("The archive's script ends in the middle of a table's rows", found="no end mark")


def _last_commit(text: bytes) -> Optional[int]:
    found = _END.search(b"\n" + text)
    return found.start() if found else None


def _execute(session: Session, text: bytes) -> None:
    # A query that contains only comments would be refused.
    if any(line.strip() and not line.startswith(b"--") for line in text.splitlines()):
        with database_errors(), session.cursor() as cursor:
            cursor.execute(text)
