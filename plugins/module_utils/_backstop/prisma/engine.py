# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guard between Prisma's CLI and its schema engine, because of two things that the CLI does before it migrates.

It starts ``schema-engine cli --datasource <URL> can-connect-to-database``: the password stands in an argument list that
every user of the host can read. And if the database is missing, it creates it.

So the CLI gets the URL without its password and our guard as its engine. The guard answers the question of the
connection with yes (the caller has a session in that database) and starts the real engine for the work, with the real
URL in its environment.
"""
from __future__ import annotations

import contextlib
import glob
import os
import re
import shlex
import tempfile
from typing import Dict, Iterator, Mapping, Sequence

from ..base.errors import Refused

VARIABLE = "PRISMA_SCHEMA_ENGINE_BINARY"
_URL = "BACKSTOP_PRISMA_URL"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCRIPT = """#!/bin/sh
if [ "$1" = cli ]; then exit 0; fi
for name in %(names)s; do export "$name=$%(url)s"; done
unset %(url)s
exec %(engine)s "$@"
"""


def find_engine(project: str, environment: Mapping[str, str]) -> str:
    """The schema engine: the one that the variable names, else the one that came with the packages."""
    named = environment.get(VARIABLE) or os.environ.get(VARIABLE)
    if named:
        path = os.path.join(project, named)
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            raise Refused(
                "Prisma's schema engine cannot be run",
                found="%s names %s, which is no program" % (VARIABLE, path),
                hint="correct or remove the variable",
            )
        return path
    pattern = os.path.join(glob.escape(project), "node_modules", "@prisma", "engines", "schema-engine-*")
    found = [path for path in sorted(glob.glob(pattern)) if os.access(path, os.X_OK)]
    if len(found) != 1:
        raise Refused(
            "Prisma's schema engine is not installed in the release",
            found=", ".join(found) or "no file " + pattern,
            expected="one engine for this host",
            hint="run `npx prisma version` in the release once, where it can download the engine, "
            "or set %s to a program" % VARIABLE,
        )
    return found[0]


@contextlib.contextmanager
def guarded(engine: str, url: str, names: Sequence[str], shown_url: str) -> Iterator[Dict[str, str]]:
    """The variables for a Prisma CLI whose engine is behind the guard; the guard is a file that lives as long.

    :param url: the URL with its password
    :param names: the variables from which the schema takes its URL
    :param shown_url: the URL without it
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise Refused(
                "The Prisma schema takes its URL from a variable of a strange name", found=repr(name),
                expected="letters, digits and underscores",
            )
    # The directory is 0700: nobody else can exchange the guard.
    with tempfile.TemporaryDirectory(prefix="backstop-prisma-") as folder:
        path = os.path.join(folder, "schema-engine")
        text = _SCRIPT % {"names": " ".join(names), "url": _URL, "engine": shlex.quote(engine)}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        # access(2) also tells of a file system that is mounted with noexec.
        if not os.access(path, os.X_OK):
            raise Refused(
                "No program can be run from the directory for temporary files",
                found="%s is mounted with noexec" % tempfile.gettempdir(),
                hint="set TMPDIR to a directory on another file system",
            )
        yield {VARIABLE: path, _URL: url, **dict.fromkeys(names, shown_url)}
