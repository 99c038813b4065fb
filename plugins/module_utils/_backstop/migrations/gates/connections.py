# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on the connections: direct, all to the same server, and without a running migration."""

from __future__ import annotations

from typing import Dict, List, Optional

from ...base import environment_file
from ...base.errors import CouldNotVerify, Refused
from ...base.remedies import Setting, remedy
from ...postgres import server
from ...postgres.connection import Session, Settings, connect
from ...postgres.pgbouncer import console
from ...prisma.project import USUAL_VARIABLE, Project
from ...prisma.sessions import lock_holders
from ...site import Site
from .inputs import GateInputs


def direct_connection(_site: Site, session: Session, _question: GateInputs) -> str:
    _refuse_pooler(session, Setting.CONNECTION)
    return "the server itself answers"


def _refuse_pooler(session: Session, setting: Setting) -> None:
    # A pooler invents the process id that it sends to the client; the server's own differs.
    if session.backend != session.value("SELECT pg_backend_pid()"):
        raise Refused(
            "The connection goes through a pooler",
            found="%s does not report the process that serves this session" % session.settings.masked,
            hint=remedy("give the direct address of the server in %s", setting),
        )


def administration_connection(site: Site, session: Session, _question: GateInputs) -> str:
    with site.administer() as admin:
        _refuse_pooler(admin, Setting.ADMINISTRATION)
        here, there = server.identity(session), server.identity(admin)
        if here.system_identifier != there.system_identifier:
            raise Refused(
                "The administration connection reaches another server than the database's",
                found="%s (system %s)" % (site.administration.masked, there.system_identifier),
                expected="system %s" % here.system_identifier,
                hint=remedy("correct %s", Setting.ADMINISTRATION),
            )
    return "%s, the same server" % site.administration.masked


def release_connection(site: Site, session: Session, question: GateInputs) -> str:
    if question.release_connections is None:
        raise _unknown_url("no environment file was given")
    found = question.release_connections()
    here = server.identity(session)
    for variable, settings in found.items():
        with connect(settings, name=site.session_name) as other:
            there = server.identity(other)
        if here != there:
            raise Refused(
                "The release uses another database than the one that would be migrated",
                found="the release's %s: %s (system %s)" % (variable, there.database, there.system_identifier),
                expected="%s (system %s)" % (here.database, here.system_identifier),
                hint=remedy("make %s and %s name the same database", Setting.CONNECTION, variable),
            )
    return "%s of the release: the same database" % ", ".join(found)


def release_connections(file: str, rules: str, project: Optional[Project]) -> Dict[str, Settings]:
    """The release's connections in an environment file, by variable.

    :param rules: how the file is read, see :mod:`...base.environment_file`
    :param project: determines the variables; without it their values do
    """
    given = environment_file.read(file, rules)
    if not given:
        raise _unknown_url("nothing can be read in " + file)
    required: List[str] = []
    if project is not None:
        required = project.schema_variables()
        names = required or project.configured_variables()
    elif USUAL_VARIABLE in given:
        names = [USUAL_VARIABLE]
    else:
        names = [name for name, value in given.items() if value.startswith(("postgresql://", "postgres://"))]
    missing = [name for name in names if not given.get(name)]
    if len(missing) == len(names) or (required and missing):
        raise _unknown_url("no %s in %s" % (", ".join(missing) or "URL of PostgreSQL", file))
    return {name: Settings.from_url(given[name]) for name in names if given.get(name)}


def _unknown_url(found: str) -> CouldNotVerify:
    return CouldNotVerify(
        "The release's own URL is not known here",
        found=found,
        hint=remedy("set %s to the file that holds it, or waive the gate with a reason", Setting.ENVIRONMENT_FILE),
    )


def poolers(site: Site, _session: Session, _question: GateInputs) -> str:
    """A rollback pauses these pools, so their consoles are checked beforehand."""
    found = []
    for pooler in site.poolers:
        with console(pooler) as there:
            wait = there.setting("query_wait_timeout")
            for pool in there.pools_of(site.database):
                if pool.paused:
                    raise Refused(
                        "The pool %s of PgBouncer at %s is paused" % (pool.name, pooler.address),
                        found="its clients wait",
                        hint="if that is not intended, run RESUME in its console",
                    )
                most = " for %s seconds at most" % wait if wait not in ("", "0") else ""
                found.append("%s at %s (%s pooling; its clients wait%s)" % (pool.name, pooler.address, pool.mode, most))
    return "; ".join(found) or "none declared"


def prisma_lock(_site: Site, session: Session, _question: GateInputs) -> str:
    holders = lock_holders(session.cursor())
    if holders:
        raise Refused(
            "Prisma's migration lock is held",
            found="backend %d (%s)" % (holders[0].pid, holders[0].application_name),
            hint="wait for that migration; if its program is gone, SELECT pg_terminate_backend(%d)" % holders[0].pid,
        )
    return "free"
