# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret in each form in which a program may show it, and where it shows: in output, files and processes."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import threading
from typing import Iterator, List, Set
from urllib.parse import quote, quote_plus

#: Programs of libpq get a password in their environment, which no other user can read.
LIBPQ = {"pg_dump", "pg_dumpall", "pg_restore", "psql"}


def as_base64(text: str) -> List[str]:
    """What base64 makes of a text within another one, for each of its three alignments."""
    whole = [base64.b64encode(b"." * before + text.encode() + b"..").decode() for before in range(3)]
    return [one[4:-8] for one in whole]


def forms(secret: str) -> List[str]:
    """The text itself, within a URL, within JSON, and within base64."""
    found = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    found.add(json.dumps(secret, ensure_ascii=False)[1:-1])
    return sorted(found) + as_base64(secret)


def shown(secret: str, text: str) -> List[str]:
    """The lines of a text that show the secret."""
    return [line for line in text.splitlines() if any(form in line for form in forms(secret))]


def files_that_show(secret: str, *folders: pathlib.Path) -> List[str]:
    wanted = [form.encode() for form in forms(secret)]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in paths if any(form in path.read_bytes() for form in wanted)]


@contextlib.contextmanager
def watched_processes(secret: str) -> Iterator[Set[str]]:
    """Arguments of all processes, and environments of all but libpq's programs, that show the secret in the block."""
    wanted, seen, stop = [form.encode() for form in forms(secret)], set(), threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            for folder in pathlib.Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    arguments = (folder / "cmdline").read_bytes()
                    program = arguments.split(b"\0")[0].decode("utf-8", "replace").rpartition("/")[2]
                    environment = b"" if program in LIBPQ else (folder / "environ").read_bytes()
                    if any(form in arguments + environment for form in wanted):
                        seen.add(arguments.replace(b"\0", b" ").decode("utf-8", "replace"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
