# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding PostgreSQL's client programs of the server's major version.

An older pg_dump refuses a newer server; a newer pg_restore uses settings that an older server does not know
(``transaction_timeout``, 17). So the major versions must be equal.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import shutil
from typing import Dict, List, Optional

from ..base.errors import Refused
from ..base.processes import run
from ..base.remedies import Setting, remedy

PROGRAMS = ("pg_dump", "pg_restore", "pg_dumpall")


@dataclasses.dataclass(frozen=True)
class ClientTools:
    """Paths of the programs, and their version."""

    pg_dump: str
    pg_restore: str
    pg_dumpall: str
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def _usual_folders(major: int) -> List[str]:
    return [
        "/usr/lib/postgresql/%d/bin" % major,  # Debian, Ubuntu
        "/usr/pgsql-%d/bin" % major,  # PGDG packages for RHEL, Fedora, SUSE
        "/opt/homebrew/opt/postgresql@%d/bin" % major,
        "/usr/local/opt/postgresql@%d/bin" % major,
        "/usr/local/pgsql/bin",
    ]


def program_version(path: str) -> Optional[str]:
    """Version that ``pg_dump --version`` prints, "15.18"; None when it does not run."""
    try:
        said = run([path, "--version"], timeout=30).stdout
    except Refused:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+|[a-z]+\d+)?)", said)
    return match.group(1) if match else None


def _in_folder(folder: str) -> Optional[ClientTools]:
    paths = {name: os.path.join(folder, name) for name in PROGRAMS}
    if not all(os.access(path, os.X_OK) for path in paths.values()):
        return None
    version = program_version(paths["pg_dump"])
    return ClientTools(version=version, **paths) if version else None


def _matches(tools: ClientTools, major: int) -> bool:
    return int(re.split(r"\D", tools.version)[0]) == major


def find_client_tools(major: int, folder: Optional[str] = None) -> ClientTools:
    """The client programs for a server of this major version.

    :param folder: look only there
    :raises Refused: names the versions that were found and the missing package
    """
    seen: Dict[str, str] = {}
    if folder:
        candidates = [folder]
    else:
        on_path = [os.path.dirname(path) for path in (shutil.which("pg_dump"),) if path]
        candidates = _usual_folders(major) + on_path + sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    for candidate in candidates:
        tools = _in_folder(candidate)
        if tools is None:
            continue
        if _matches(tools, major):
            return tools
        seen[candidate] = tools.version
    found = "; ".join("%s in %s" % (version, place) for place, version in seen.items())
    raise Refused(
        "PostgreSQL's client programs of version %d are missing on this host" % major,
        found=found or "no pg_dump, pg_restore and pg_dumpall" + (" in " + folder if folder else ""),
        expected="version %d, as the server's" % major,
        hint=remedy(
            "install postgresql-client-%s (Debian, Ubuntu) or postgresql%s (PGDG for RHEL, Fedora), or set %s",
            major,
            major,
            Setting.CLIENT_BIN_DIR,
        ),
    )
