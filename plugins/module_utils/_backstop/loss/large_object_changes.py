# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of large objects: each keeps its oid, because rows refer to it by that.

A new object is carried if its oid is free there; a changed or deleted one, if it is unchanged there. Its owner and
privileges are carried too.
"""

from __future__ import annotations

import tempfile
from typing import IO, Any, Dict, List, Sequence, Tuple, cast

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.sql_names import quote_identifier, quote_literal
from ..postgres.connection import Session
from .row_changes import RowChanges, savepoint

_STAGE = "pg_temp.backstop_large_objects"
_CONTENT = "SELECT oid, %s, lo_get(oid) FROM pg_largeobject_metadata WHERE oid = ANY('{%s}'::oid[])"
_OWNER = "pg_get_userbyid(lomowner)"
#: Large objects whose contents are read to prove what a transaction did, by oid.
_PRINTS = "SELECT oid::bigint, md5(lo_get(oid)) FROM pg_largeobject_metadata"


class LargeObjectChanges:
    """The changes of a database's large objects."""

    def __init__(self, session: Session) -> None:
        """:param session: in the database that the changes are applied to, in a transaction"""
        self.session = session
        self._grants: List[str] = []
        self._before = dict(session.rows(_PRINTS))
        session.execute(
            "CREATE TEMPORARY TABLE backstop_large_objects (id oid NOT NULL, how text NOT NULL, state text NOT NULL"
            " DEFAULT 'pending', reason text, owner text, before bytea, after bytea) ON COMMIT DROP"
        )

    # Staging

    def stage(self, live: Session, base: Session, numbers: Sequence[int], *, deletes: bool, folder: str) -> None:
        """Stage the objects of these oids as they are in the live database and as they were in the base."""
        listed = ",".join(map(str, numbers))
        for session, name in ((live, "after"), (base, "before")):
            self.session.execute(
                "CREATE TEMPORARY TABLE backstop_lo_%s (id oid, owner text, content bytea) ON COMMIT DROP" % name
            )
            with tempfile.SpooledTemporaryFile(max_size=RowChanges.SPOOL_BYTES, dir=folder) as spool:
                session.copy_out("COPY (%s) TO STDOUT" % (_CONTENT % (_OWNER, listed)), cast(IO[bytes], spool))
                spool.seek(0)
                self.session.copy_in("COPY pg_temp.backstop_lo_%s FROM STDIN" % name, cast(IO[bytes], spool))
        self.session.execute(
            "INSERT INTO %s (id, how, owner, before, after) SELECT coalesce(a.id, b.id), CASE WHEN b.id IS NULL THEN"
            " 'insert' WHEN a.id IS NULL THEN 'delete' ELSE 'update' END, coalesce(a.owner, b.owner), b.content,"
            " a.content FROM pg_temp.backstop_lo_after a FULL JOIN pg_temp.backstop_lo_before b USING (id)"
            " WHERE a.content IS DISTINCT FROM b.content%s" % (_STAGE, "" if deletes else " AND a.id IS NOT NULL")
        )
        self.session.execute("DROP TABLE pg_temp.backstop_lo_after, pg_temp.backstop_lo_before")
        self._stage_grants(live)

    def _stage_grants(self, live: Session) -> None:
        """Privileges of new objects, as statements; they do not depend on row data."""
        new = [int(one) for (one,) in self.session.rows("SELECT id::bigint FROM %s WHERE how = 'insert'" % _STAGE)]
        found = live.rows(
            "SELECT m.oid::bigint, a.privilege_type, CASE WHEN a.grantee = 0 THEN NULL ELSE"
            " pg_get_userbyid(a.grantee)::text END, a.is_grantable FROM pg_largeobject_metadata m,"
            " aclexplode(m.lomacl) a WHERE a.grantee <> m.lomowner AND m.oid = ANY(%s::oid[])",
            (new,),
        )
        self._grants = [
            "GRANT %s ON LARGE OBJECT %d TO %s%s"
            % (
                privilege,
                number,
                "PUBLIC" if role is None else quote_identifier(role),
                " WITH GRANT OPTION" if grantable else "",
            )
            for number, privilege, role, grantable in found
        ]

    def save(self, stream: IO[bytes]) -> None:
        """Write the applied changes, for load()."""
        query = "SELECT id, how, owner, before, after FROM %s WHERE state = 'applied'" % _STAGE
        self.session.copy_out("COPY (%s) TO STDOUT" % query, stream)

    def load(self, stream: IO[bytes]) -> None:
        self.session.copy_in("COPY %s (id, how, owner, before, after) FROM STDIN" % _STAGE, stream)

    def invert(self) -> None:
        """Invert the changes: applying them then reverts them."""
        self.session.execute(
            "UPDATE %s SET how = CASE how WHEN 'insert' THEN 'delete' WHEN 'delete' THEN 'insert' ELSE how END,"
            " before = after, after = before" % _STAGE
        )

    # Applying

    def apply(self) -> None:
        self._classify()
        for how, statement in (
            ("delete", "SELECT lo_unlink(id) FROM %s"),
            ("update", "SELECT lo_truncate64(lo_open(id, 131072), 0), lo_put(id, 0, after) FROM %s"),
        ):
            self.session.execute((statement % _STAGE) + " WHERE state = 'pending' AND how = '%s'" % how)
        pending = "SELECT id::bigint, owner FROM %s WHERE state = 'pending' AND how = 'insert' ORDER BY id" % _STAGE
        for number, owner in self.session.rows(pending):
            self._make(int(number), str(owner))
        self.session.execute("UPDATE %s SET state = 'applied' WHERE state = 'pending'" % _STAGE)

    def _classify(self) -> None:
        there = "EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = id)"
        # With CASE, because lo_get() of a missing object is an error whatever AND says.
        content = "CASE WHEN %s THEN lo_get(id) END" % there
        for state, reason, condition in (
            ("same", None, "how = 'delete' AND NOT " + there),
            ("same", None, "how <> 'delete' AND %s AND %s = after" % (there, content)),
            ("conflict", "its number is taken by another large object", "how = 'insert' AND " + there),
            ("conflict", "the large object was deleted there", "how = 'update' AND NOT " + there),
            (
                "conflict",
                "the large object was changed on both sides",
                "how <> 'insert' AND %s IS DISTINCT FROM before" % content,
            ),
        ):
            self.session.execute(
                "UPDATE %s SET state = '%s', reason = %s WHERE state = 'pending' AND (%s)"
                % (_STAGE, state, quote_literal(reason) if reason else "NULL", condition)
            )

    def _make(self, number: int, owner: str) -> None:
        """Create an object with its owner and privileges; it is a conflict if these cannot be set."""
        try:
            with savepoint(self.session):
                self.session.execute(
                    "SELECT lo_from_bytea(id, after) FROM %s WHERE id = %d AND how = 'insert'" % (_STAGE, number)
                )
                if owner != self.session.value("SELECT current_user::text"):
                    self.session.execute("ALTER LARGE OBJECT %d OWNER TO %s" % (number, quote_identifier(owner)))
                for grant in self._grants_of(number):
                    self.session.execute(grant)
        except BackstopError as error:
            if error.sqlstate not in (sqlstates.INSUFFICIENT_PRIVILEGE, sqlstates.UNDEFINED_OBJECT):
                raise
            self.session.execute(
                "UPDATE %s SET state = 'conflict', reason = %s WHERE id = %d"
                % (_STAGE, quote_literal("its owner or its privileges cannot be given there"), number)
            )

    def _grants_of(self, number: int) -> List[str]:
        mark = " ON LARGE OBJECT %d TO " % number
        return [grant for grant in self._grants if mark in grant]

    # Results

    def prove(self) -> bool:
        """Whether the database holds the same objects as before, except for the applied changes."""
        expected = dict(self._before)
        found = self.session.rows("SELECT id::bigint, how, md5(after) FROM %s WHERE state = 'applied'" % _STAGE)
        for number, how, content in found:
            if how == "delete":
                del expected[number]
            else:
                expected[number] = content
        return expected == dict(self.session.rows(_PRINTS))

    def counts(self) -> Dict[Tuple[str, str, bool], int]:
        found = self.session.rows("SELECT how, state, count(*) FROM %s GROUP BY 1, 2" % _STAGE)
        return {(str(how), str(state), False): int(count) for how, state, count in found}

    def reasons(self) -> List[Tuple[str, int]]:
        found = self.session.rows(
            "SELECT reason, count(*) FROM %s WHERE state = 'conflict' GROUP BY 1 ORDER BY 1" % _STAGE
        )
        return [(str(reason), int(count)) for reason, count in found]

    def left_hashes(self) -> List[int]:
        """Oids of live objects that were not carried to this database."""
        found = self.session.rows("SELECT id::bigint FROM %s WHERE how <> 'delete' AND state = 'conflict'" % _STAGE)
        return [int(number) for (number,) in found]

    def conflicts(self) -> List[Dict[str, Any]]:
        found = self.session.rows(
            "SELECT id::bigint, how, reason FROM %s WHERE state = 'conflict' ORDER BY id" % _STAGE
        )
        return [
            {"table": "pg_catalog.pg_largeobject", "key": {"oid": number}, "change": how, "reason": reason}
            for number, how, reason in found
        ]
