# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How SQL in a database can reach another database, server or program, and closing foreign servers on a copy.

A copy on the live server can reach the same ones, so trials on it would have permanent effects elsewhere.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

from ..base.errors import BackstopError, Refused
from ..base.sql_names import quote_identifier
from .connection import Session

#: Extensions whose functions or workers reach beyond their database.
REACHING = (
    "adminpack", "amqp", "aws_lambda", "aws_s3", "citus", "dblink", "http", "multicorn", "orafce", "pg_background",
    "pg_bulkload", "pg_cron", "pg_file_utils", "pg_net", "pgagent", "pglogical", "pgmemcache", "plproxy",
    "timescaledb", "wrappers",
)  # fmt: skip
#: Those of them that act by themselves, without a call.
_WORKERS = ("citus", "pg_cron", "pg_net", "pgagent", "pglogical", "timescaledb")
#: Options of a postgres_fdw server that set its address.
_PLACE = ("host", "hostaddr", "port", "dbname", "service")
#: A socket directory that does not exist.
NOWHERE = "/backstop/closed"

_UNTRUSTED = """
SELECT l.lanname, count(*), min(p.oid::regprocedure::text) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE NOT l.lanpltrusted AND l.lanname NOT IN ('internal', 'c')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
GROUP BY 1 ORDER BY 1"""
_PROGRAMS = r"""
SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND p.prosrc ~* '\mcopy\M.*\mprogram\M'
ORDER BY 1"""
#: Functions that this role may call, or that a SECURITY DEFINER function may call for it.
_EXTENSIONS = """
SELECT e.extname, coalesce(bool_or(has_function_privilege(d.objid, 'EXECUTE') OR EXISTS (
    SELECT FROM pg_proc p WHERE p.prosecdef AND has_function_privilege(p.proowner, d.objid, 'EXECUTE')
      AND has_function_privilege(p.oid, 'EXECUTE'))), false)
FROM pg_extension e LEFT JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
  AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
WHERE e.extname = ANY(%s) GROUP BY 1 ORDER BY 1"""
_SERVERS = """
SELECT s.srvname, w.fdwname, coalesce(h.proname, ''),
  EXISTS (SELECT FROM pg_foreign_table t WHERE t.ftserver = s.oid AND t.ftoptions::text ~ 'program='),
  coalesce(s.srvoptions, '{}')
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw LEFT JOIN pg_proc h ON h.oid = w.fdwhandler
ORDER BY 1"""


def unclosable(session: Session) -> List[str]:
    """The ways out of this database that :func:`close_servers` does not close, as sentences."""
    found = []
    for name, can_be_called in session.rows(_EXTENSIONS, (list(REACHING),)):
        if name in _WORKERS or can_be_called:
            found.append("extension %s reaches other databases or servers" % name)
    for language, count, example in session.rows(_UNTRUSTED):
        found.append("%d functions in %s, which can do anything: %s" % (count, language, example))
    found += ["function %s runs a program on the server" % name for (name,) in session.rows(_PROGRAMS)]
    for name, wrapper, handler, runs_program, _options in session.rows(_SERVERS):
        if runs_program or handler not in ("", "postgres_fdw_handler", "file_fdw_handler"):
            found.append("foreign server %s (%s)" % (name, wrapper))
    return found


def is_unconfined(session: Session) -> bool:
    """Whether this session's role can run programs on the server by SQL alone (COPY ... PROGRAM)."""
    return bool(
        session.value(
            "SELECT rolsuper OR pg_has_role('pg_execute_server_program', 'MEMBER') FROM pg_roles"
            " WHERE rolname = session_user"
        )
    )


def foreign_tables(session: Session) -> Dict[str, str]:
    """Name of each foreign table, without its schema, and its server."""
    return dict(
        session.rows(
            "SELECT c.relname, s.srvname FROM pg_foreign_table t JOIN pg_class c ON c.oid = t.ftrelid"
            " JOIN pg_foreign_server s ON s.oid = t.ftserver"
        )
    )


def triggers(session: Session, tables: Sequence[str]) -> List[str]:
    """Enabled user triggers on tables with these names: "audit on shop.orders"."""
    return [
        "trigger %s on %s" % row
        for row in session.rows(
            "SELECT tgname, tgrelid::regclass::text FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
            " WHERE NOT tgisinternal AND tgenabled <> 'D' AND c.relname = ANY(%s) ORDER BY 2, 1",
            (list(tables),),
        )
    ]


def close_servers(session: Session) -> Dict[str, List[str]]:
    """Point the postgres_fdw servers to a socket that does not exist; returns their options for :func:`reopen_servers`.

    :raises Refused: a server cannot be closed
    """
    was = {}
    for name, options in _postgres_servers(session):
        _set_options(session, name, options, _closed(options))
        was[name] = options
    left = [name for name, options in _postgres_servers(session) if sorted(options) != sorted(_closed(options))]
    if left:
        raise Refused("A foreign server of the copy could not be closed", found=", ".join(left))
    return was


def reopen_servers(session: Session, was: Mapping[str, List[str]]) -> None:
    """Restore the servers' options, so that the copy can be compared; skips a server that was changed meanwhile."""
    for name, options in _postgres_servers(session):
        if name in was and sorted(options) == sorted(_closed(was[name])):
            _set_options(session, name, options, was[name])


def _postgres_servers(session: Session) -> List[Tuple[str, List[str]]]:
    return [(row[0], row[4]) for row in session.rows(_SERVERS) if row[2] == "postgres_fdw_handler"]


def _closed(options: List[str]) -> List[str]:
    return ["host=" + NOWHERE, *(option for option in options if option.partition("=")[0] not in _PLACE)]


def _set_options(session: Session, name: str, options: List[str], wanted: List[str]) -> None:
    have, want = (dict(one.split("=", 1) for one in options_) for options_ in (options, wanted))
    parts: List[str] = ["DROP " + quote_identifier(key) for key in have if key not in want]
    values = []
    for key, value in want.items():
        if have.get(key) != value:
            parts.append("%s %s %%s" % ("SET" if key in have else "ADD", quote_identifier(key).replace("%", "%%")))
            values.append(value)
    if not parts:
        return
    statement = "ALTER SERVER %s OPTIONS (%s)" % (quote_identifier(name).replace("%", "%%"), ", ".join(parts))
    try:
        session.execute(statement, values)
    except BackstopError as error:
        raise Refused(
            "A foreign server of the copy could not be closed", found="%s: %s" % (name, error.found)
        ) from error
