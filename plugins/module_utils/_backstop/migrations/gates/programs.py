# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on PostgreSQL's programs: the client tools, and the server's own on disk."""

from __future__ import annotations

import os
import re
from typing import Optional

from ...base import sqlstates
from ...base.errors import BackstopError, CouldNotVerify, Refused
from ...base.processes import stat_fields
from ...base.remedies import Setting, remedy
from ...postgres import server
from ...postgres.client_tools import program_version
from ...postgres.connection import Session
from ...site import Site
from .inputs import GateInputs, is_local


def client_tools(site: Site, session: Session, _question: GateInputs) -> str:
    tools = site.tools(session)
    return "%s of version %s" % (os.path.dirname(tools.pg_dump), tools.version)


def server_programs(site: Site, session: Session, question: GateInputs) -> str:
    """A package upgrade under a running server breaks what loads a library from disk: in a new session, the first
    function call of a restore fails with an undefined symbol, while a dump still works."""
    running = _plain_version(server.version_text(session))
    _load_a_library(site)
    on_disk = _version_on_disk(site, session)
    how = "on disk too"
    if on_disk is None and question.server_programs_version:
        on_disk, how = _declared(question.server_programs_version), "declared to be on disk too"
    if on_disk is None:
        raise CouldNotVerify(
            "The server's programs on disk cannot be seen from here",
            found="version %s runs, and a new session can load its libraries" % running,
            hint=remedy(
                "set %s to what `postgres --version` says there, or waive the gate server_programs with a reason, such"
                " as a server that its provider keeps",
                Setting.SERVER_PROGRAMS_VERSION,
            ),
        )
    if on_disk != running:
        raise Refused(
            "The server's programs on disk are of another version than the server that runs",
            found="%s on disk" % on_disk,
            expected=running,
            hint="restart the server before the deploy: new sessions load the libraries of the other version",
        )
    return "version %s runs (%s), and a new session can load its libraries" % (running, how)


def _declared(text: str) -> str:
    """The version in a user's text: ``postgres (PostgreSQL) 15.18 (Debian ...)``, or only the version."""
    match = re.search(r"\d+(?:\.\d+|[a-z]+\d+)*", text)
    if match is None:
        raise Refused(
            "The declared version of the server's programs is invalid",
            found=text,
            expected="such as 15.18",
            hint=remedy("correct %s", Setting.SERVER_PROGRAMS_VERSION),
        )
    return match.group()


def _load_a_library(site: Site) -> None:
    """In a new session: one that loaded it before the upgrade would not notice."""
    try:
        with site.connect() as session:
            session.execute("DO $$ BEGIN END $$ LANGUAGE plpgsql")
    except BackstopError as error:
        if error.sqlstate == sqlstates.UNDEFINED_OBJECT:  # the database was created without plpgsql
            return
        raise Refused(
            "The server cannot load its own library in a new session",
            found=str(error.found),
            hint="restart the server: its programs on disk were probably exchanged while it ran",
        ) from None


def _version_on_disk(site: Site, session: Session) -> Optional[str]:
    path = _program_of(session.backend) if is_local(site.connection) else None
    found = program_version(path) if path else None
    return _plain_version(found) if found else None


def _program_of(backend: int) -> Optional[str]:
    """Path of the server program that this backend was started from; None if unknown.

    A backend shows itself as "postgres: ..."; the command line of its parent, which every user can read, has the path.
    """
    said = _command(backend)
    if said.startswith("postgres:"):
        parent = stat_fields(backend)[1:2]
        said = _command(int(parent[0])) if parent else ""
    return said if os.path.isabs(said) and os.path.basename(said) in ("postgres", "postmaster") else None


def _command(pid: int) -> str:
    try:
        with open("/proc/%d/cmdline" % pid, encoding="utf-8", errors="replace") as stream:
            return stream.read().split("\0", 1)[0]
    except OSError:
        return ""


def _plain_version(text: str) -> str:
    """Without the packager's suffix: ``15.18 (Debian 15.18-1)``."""
    match = re.match(r"[\d.]+(?:[a-z]+\d+)?", text)
    return match.group() if match else text
