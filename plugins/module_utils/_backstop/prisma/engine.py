# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guard between Prisma's CLI and its schema engine, because of two things that the CLI does before it migrates.

It starts ``schema-engine cli --datasource <URL> can-connect-to-database``: the password is in an argument list that
every user of the host can read. And if the database is missing, it creates it.

So the CLI gets the URL without its password, and our guard as its engine. The guard answers the connection check with
yes (the caller has a session in that database), and starts the real engine for the work, with the real URL in its
environment.

If the URL comes from prisma.config.ts, as always with Prisma 7, the CLI passes it to the engine as an argument for the
work too. Then both must use a URL without a password, and a configuration of ours replaces the project's: it has the
same settings except for the URL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import shlex
import tempfile
from typing import Dict, Iterator, Mapping, Sequence

from ..base.errors import Refused
from ..base.private_directory import private_directory
from .packages import find_package
from .project import Project

VARIABLE = "PRISMA_SCHEMA_ENGINE_BINARY"
_URL = "BACKSTOP_PRISMA_URL"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCRIPT = """#!/bin/sh
for word in "$@"; do if [ "$word" = cli ]; then exit 0; fi; done
for name in %(names)s; do export "$name=$%(url)s"; done
unset %(url)s
exec %(engine)s "$@"
"""
#: Top-level await: Prisma loads the project's own configuration, in whatever language.
_CONFIG = """\
import { createRequire } from 'node:module'
const { loadConfigFromFile } = createRequire(%(entry)s)('@prisma/config')
const { config, error } = await loadConfigFromFile({ configFile: %(file)s, configRoot: %(root)s })
if (error) throw error.error ?? new Error(error._tag)
const same = (what, read, ours) => {
  if (read && read !== ours) throw new Error(`the ${what} is ${read} by the configuration and was taken for ${ours}`)
}
if (%(check_schema)s) same('schema', config.schema, %(schema)s)
same('migrations folder', config.migrations?.path, %(migrations)s)
if (config.engine === 'js') throw new Error('an engine with an adapter connects as it likes; use the classic one')
const { loadedFromFile, deprecatedPackageJson, ...said } = config
export default {
  ...said,
  schema: %(schema)s,
  migrations: { ...config.migrations, path: %(migrations)s },
  datasource: { url: process.env.%(url)s },
}
"""


def write_config(folder: str, entry: str, project: Project) -> str:
    """Write the configuration that replaces the project's; returns its path.

    :param folder: private, exists as long as Prisma runs
    :param entry: Prisma's program, next to its packages
    """
    given = {
        "entry": entry,
        "root": project.path,
        "file": project.config_path,
        "schema": project.schema(),
        "migrations": project.migrations(),
        # A schema that an argument names need not be that of the configuration.
        "check_schema": project.schema_path is None,
    }
    words = {name: "undefined" if value is None else json.dumps(value) for name, value in given.items()}
    path = os.path.join(folder, "prisma.config.mjs")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(_CONFIG % {**words, "url": _URL})
    return path


def find_engine(project: str, package: str, environment: Mapping[str, str]) -> str:
    """The schema engine: the one in the variable, else the one in the packages.

    :param package: the directory of the package ``prisma``, perhaps a link to where its own packages are
    """
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
    usual = os.path.join(os.path.dirname(package), "@prisma", "engines")
    engines = find_package(os.path.realpath(package), "@prisma/engines") or usual
    pattern = os.path.join(glob.escape(engines), "schema-engine-*")
    found = [path for path in sorted(glob.glob(pattern)) if os.access(path, os.X_OK)]
    if len(found) != 1:
        raise Refused(
            "Prisma's schema engine is not installed in the release",
            found=", ".join(found) or "no file %s/schema-engine-*" % engines,
            expected="one engine for this host",
            hint="run `npx prisma version` in the release once, where it can download the engine, "
            "or set %s to a program" % VARIABLE,
        )
    return found[0]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a Prisma CLI needs to run its engine behind the guard."""

    #: The guard's private directory.
    folder: str
    variables: Dict[str, str]


@contextlib.contextmanager
def guarded(engine: str, url: str, names: Sequence[str], shown_url: str) -> Iterator["Guard"]:
    """A guard for a Prisma CLI: a file in a directory that exists as long as the context.

    :param url: the URL with its password
    :param names: the variables from which the schema takes its URL
    :param shown_url: the URL without it
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise Refused(
                "The Prisma schema reads its URL from a variable with an invalid name",
                found=repr(name),
                expected="letters, digits and underscores",
            )
    # No other user can replace the guard.
    with private_directory() as folder:
        path = os.path.join(folder, "schema-engine")
        text = _SCRIPT % {"names": " ".join(names), "url": _URL, "engine": shlex.quote(engine)}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        # access(2) also detects a file system that is mounted with noexec.
        if not os.access(path, os.X_OK):
            raise Refused(
                "No program can be run from the directory for temporary files",
                found="%s is mounted with noexec" % tempfile.gettempdir(),
                hint="set TMPDIR to a directory on another file system",
            )
        yield Guard(folder, {VARIABLE: path, _URL: url, **dict.fromkeys(names, shown_url)})
