# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gate: trials affect only the copy; and what the migrations will send to other servers from the live database."""

from __future__ import annotations

from typing import List

from ...base.errors import BackstopError, Refused
from ...postgres.connection import Session
from ...postgres.scratch_server import require_programs
from ...postgres.ways_out import REACHING, foreign_tables, triggers, unclosable
from ...prisma.history import MigrationFile
from ...prisma.outgoing import notifies, openings, written_names
from ...site import Site
from .inputs import GateInputs


def isolation(site: Site, session: Session, question: GateInputs) -> str:
    files = [file for file in question.files if file.name in question.expected]
    _refuse_foreign_rows(session, files)
    ways = unclosable(session) + ["%s %s" % (file.name, way) for file in files for way in openings(file.sql, REACHING)]
    said = _sent(session, files)
    if ways and files:
        try:
            require_programs(site.tools(session))
        except BackstopError as error:
            raise Refused(
                "What a rehearsal tries could act on other databases or servers",
                found="; ".join(ways),
                hint="%s. Then it runs in a server of its own. Or drop what is not needed" % (error.hint or error),
            ) from error
        said.insert(0, "the rehearsal runs in a server of its own, because of: " + "; ".join(ways))
    return "; ".join(said) or "nothing on the copy reaches other databases or servers; the migrations send nothing"


def _refuse_foreign_rows(session: Session, files: List[MigrationFile]) -> None:
    there = foreign_tables(session)
    found = [
        "%s: %s (server %s)" % (file.name, name, there[name])
        for file in files
        for name in sorted(written_names(file.sql) & set(there))
    ]
    if found:
        raise Refused(
            "A migration works on rows of another server, which a rehearsal must not reach",
            found="; ".join(found),
            hint="do that part by hand, outside of the migration",
        )


def _sent(session: Session, files: List[MigrationFile]) -> List[str]:
    said = []
    for file in files:
        found = triggers(session, sorted(written_names(file.sql)))
        if found:
            said.append("%s fires %s" % (file.name, ", ".join(found)))
        if notifies(file.sql):
            said.append("%s sends notifications" % file.name)
    return said
