# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on the migrations: exactly the expected ones are pending, and they affect only their database."""

from __future__ import annotations

from ...base.errors import Refused
from ...base.remedies import Action, remedy
from ...postgres import catalog
from ...postgres.connection import Session
from ...prisma import history
from ...prisma.sql_text import cluster_statements
from ...site import Site
from .inputs import GateInputs


def migrations(site: Site, session: Session, question: GateInputs) -> str:
    rows = history.read_rows(session.cursor(), site.connection.schema)
    tables = catalog.tables(session) if rows is None and question.files else []
    if tables:
        raise Refused(
            "The database has tables but no history of migrations (Prisma calls this P3005)",
            found="%d tables, the first %s; no table %s" % (len(tables), tables[0].full_name, history.TABLE),
            hint=remedy(
                "mark as applied the migrations whose changes it has already, the oldest first (baselining), with %s."
                " Then run this again",
                Action.MARK_MIGRATION,
            ),
        )
    state = history.compare(question.files, rows)
    problems = state.problems(question.expected)
    if problems:
        lines = ["%s: %s" % (problem.message, ", ".join(problem.names)) for problem in problems]
        # List each only once: an edited migration often makes the next one unknown for the same reason.
        hints = list(dict.fromkeys(problem.hint for problem in problems))
        raise Refused("; ".join(lines), hint=remedy("; ".join(["%s"] * len(hints)), *hints))
    return "pending: %s" % (", ".join(state.pending) or "none")


def within_database(_site: Site, _session: Session, question: GateInputs) -> str:
    found = [
        "%s line %d: %s" % (file.name, statement.line, statement.text)
        for file in question.files
        if file.name in question.expected
        for statement in cluster_statements(file.sql)
    ]
    if found:
        raise Refused(
            "A migration changes the whole server",
            found="; ".join(found[:5]),
            hint="that cannot be rehearsed in a scratch database nor rolled back: do it by hand, outside of the"
            " migration",
        )
    return "the migrations stay within the database"
