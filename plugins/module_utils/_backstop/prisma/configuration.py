# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma's configuration as Prisma itself resolves it: prisma.config.ts is a program, so the release's Node runs it.

Only the names of variables are returned, never their values. URL variables that are not set here get a made-up URL,
because ``env()`` of prisma/config fails without one (the application's are not set for the user who runs this).
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from typing import List, Optional

from ..base.environment_file import secrets_in
from ..base.errors import Refused
from ..base.processes import find_program, redact, run
from .packages import find_package

_SECONDS = 120
_MOST = 300
_SCRIPT = r"""
const { createRequire } = require('node:module')
const { entry, file, root, mark } = JSON.parse(process.env.BACKSTOP_REQUEST)
const { loadConfigFromFile } = createRequire(entry)('@prisma/config')
const read = new Map()
const isUrl = (name) => /^PG|URL|URI|DSN|DATABASE|POSTGRES/i.test(name)
process.env = new Proxy(process.env, {
  get(variables, name) {
    let value = variables[name]
    if (value === undefined && typeof name === 'string' && isUrl(name)) value = `postgresql://backstop@localhost:1/${name}`
    if (value) read.set(name, value)
    return value
  },
})
const namesOf = (url) => {
  if (!url) return []
  const names = (test) => [...read].filter(([, value]) => test(value)).map(([name]) => name)
  const whole = names((value) => value === url)
  return whole.length ? whole : names((value) => value.length > 2 && url.includes(value))
}
loadConfigFromFile({ configFile: file ?? undefined, configRoot: root }).then(({ config, error }) => {
  if (error) throw error.error ?? new Error(error._tag)
  if (!config.loadedFromFile) throw new Error('Prisma passes over it; does it import something that is not installed?')
  const { url, directUrl, shadowDatabaseUrl } = config.datasource ?? {}
  return {
    schema: config.schema, migrations: config.migrations?.path, datasource: Boolean(config.datasource),
    variables: [...namesOf(url), ...namesOf(directUrl)], shadow_variables: namesOf(shadowDatabaseUrl),
  }
}).catch((error) => ({ error: String(error?.message ?? error) })).then((answer) => {
  process.stdout.write(`\n${mark}${JSON.stringify(answer)}\n`, () => process.exit(0))
})
"""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The settings in Prisma's configuration; each may be left to Prisma's default."""

    #: absolute paths
    schema: Optional[str] = None
    migrations: Optional[str] = None
    #: it has its own datasource, which overrides the schema's
    datasource: bool = False
    #: names of the variables for the URLs that the CLI uses
    variables: List[str] = dataclasses.field(default_factory=list)
    shadow_variables: List[str] = dataclasses.field(default_factory=list)


def find_node(node_bin_dir: Optional[str]) -> str:
    """The program ``node``.

    :param node_bin_dir: its directory; default is PATH
    """
    node = find_program("node", [node_bin_dir] if node_bin_dir else [])
    if node is None or (node_bin_dir and os.path.dirname(node) != node_bin_dir.rstrip("/")):
        raise Refused(
            "Node.js is missing",
            found="no program node in " + (node_bin_dir or "PATH"),
            hint="install Node.js 18.18 or newer, or give its directory as node_bin_dir",
        )
    return node


def find_prisma(project: str) -> str:
    """The directory of the package ``prisma``."""
    package = find_package(project, "prisma")
    if package is None:
        raise Refused(
            "Prisma is not installed in the release",
            found="no package prisma in node_modules of %s or of a folder above" % project,
            hint="run `npm ci` there; `npm ci --omit=dev` leaves Prisma out if it is a development dependency",
        )
    return package


def entry_of(package: str) -> str:
    """Prisma's program. It is run directly: npx takes three seconds more, and may use the network."""
    return os.path.join(package, "build", "index.js")


def resolve(project: str, file: str, named: bool, node_bin_dir: Optional[str]) -> Configuration:
    """Run the configuration of a project.

    :param file: the configuration
    :param named: the file's path must be given to Prisma; else Prisma finds it by itself
    """
    mark = secrets.token_hex(8)
    request = {"entry": entry_of(find_prisma(project)), "file": file if named else None, "root": project, "mark": mark}
    finished = run(
        [find_node(node_bin_dir), "-"],
        data=_SCRIPT.encode(),
        environment={"BACKSTOP_REQUEST": json.dumps(request), "NO_COLOR": "1", "CHECKPOINT_DISABLE": "1"},
        cwd=project,
        timeout=_SECONDS,
    )
    lines = [line[len(mark) :] for line in finished.stdout.splitlines() if line.startswith(mark)]
    answer = json.loads(lines[-1]) if lines else {"error": finished.stderr.strip()[-500:] or "it ended early"}
    if "error" in answer:
        said = " ".join(redact(str(answer["error"]), secrets_in(os.path.join(project, ".env"))).split())
        # For an unknown key Prisma first lists all known keys.
        said = said if len(said) <= _MOST else "..." + said[-_MOST:]
        raise Refused(
            "Prisma's configuration cannot be loaded",
            found="%s: %s" % (file, said),
            hint="see that `npx prisma validate` works in %s for this user" % project,
        )
    return Configuration(**answer)
