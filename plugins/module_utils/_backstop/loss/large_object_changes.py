# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of large objects: each keeps its oid, because rows refer to it by that.

A new object is carried if its oid is free there; a changed or deleted one, if it is unchanged there. Its owner and
privileges are carried too.
"""

from __future__ import annotations

from typing import Dict, List, Tuple

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.sql_names import quote_identifier
from ..postgres.connection import Session
from .changes import Changes, Databases
from .count import LARGE_OBJECTS, TableLoss

#: The hash of a large object is its oid; its values are its contents and its owner.
_VALUES = (
    "SELECT oid::bigint, false, lo_get(oid), pg_get_userbyid(lomowner) FROM pg_largeobject_metadata"
    " WHERE oid = ANY('{%s}'::oid[])"
)
#: Large objects whose contents are read to prove what a transaction did, by oid.
_PRINTS = "SELECT oid::bigint, md5(lo_get(oid)) FROM pg_largeobject_metadata"


class LargeObjectChanges(Changes):
    """The changes of a database's large objects."""

    full_name = ".".join(LARGE_OBJECTS)

    def __init__(self, session: Session) -> None:
        super().__init__(session, "backstop_large_objects", ["bytea", "text"])
        self._grants: List[str] = []
        self._before = dict(session.rows(_PRINTS))

    # Staging

    def stage(self, databases: Databases, loss: TableLoss, *, deletes: bool, folder: str) -> None:
        """Stage the lost objects as they are in the live database and as they were in the base."""
        query = _VALUES % ",".join(map(str, [*loss.keys, *(loss.deleted_keys if deletes else [])]))
        self._copy_both(databases, query, query, folder)
        self._pair_by_hash("true", deletes)
        self._end_staging()
        self._stage_grants(databases.live)

    def _stage_grants(self, live: Session) -> None:
        """Privileges of new objects, as statements; they do not depend on row data."""
        new = [int(one) for (one,) in self.session.rows("SELECT hash FROM %s WHERE how = 'insert'" % self._stage)]
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

    # Applying

    def apply(self) -> None:
        self._classify()
        for how, statement in (
            ("delete", "SELECT lo_unlink(hash::oid)"),
            ("update", "SELECT lo_truncate64(lo_open(hash::oid, 131072), 0), lo_put(hash::oid, 0, a0)"),
        ):
            self.session.execute("%s FROM %s WHERE state = 'pending' AND how = '%s'" % (statement, self._stage, how))
        pending = "SELECT hash, a1 FROM %s WHERE state = 'pending' AND how = 'insert' ORDER BY hash" % self._stage
        for number, owner in self.session.rows(pending):
            self._make(int(number), str(owner))
        self.session.execute("UPDATE %s SET state = 'applied' WHERE state = 'pending'" % self._stage)

    def _classify(self) -> None:
        there = "EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = hash::oid)"
        # With CASE, because lo_get() of a missing object is an error whatever AND says.
        content = "CASE WHEN %s THEN lo_get(hash::oid) END" % there
        for state, reason, condition in (
            ("same", None, "how = 'delete' AND NOT " + there),
            ("same", None, "how <> 'delete' AND %s AND %s = a0" % (there, content)),
            ("conflict", "its number is taken by another large object", "how = 'insert' AND " + there),
            ("conflict", "the large object was deleted there", "how = 'update' AND NOT " + there),
            (
                "conflict",
                "the large object was changed on both sides",
                "how <> 'insert' AND %s IS DISTINCT FROM b0" % content,
            ),
        ):
            self._set(state, reason, condition)

    def _make(self, number: int, owner: str) -> None:
        """Create an object with its owner and privileges; it is a conflict if these cannot be set."""
        try:
            with self.session.savepoint():
                self.session.execute(
                    "SELECT lo_from_bytea(hash::oid, a0) FROM %s WHERE hash = %d AND how = 'insert'"
                    % (self._stage, number)
                )
                if owner != self.session.value("SELECT current_user::text"):
                    self.session.execute("ALTER LARGE OBJECT %d OWNER TO %s" % (number, quote_identifier(owner)))
                for grant in self._grants_of(number):
                    self.session.execute(grant)
        except BackstopError as error:
            if error.sqlstate not in (sqlstates.INSUFFICIENT_PRIVILEGE, sqlstates.UNDEFINED_OBJECT):
                raise
            self._set("conflict", "its owner or its privileges cannot be given there", "hash = %d" % number)

    def _grants_of(self, number: int) -> List[str]:
        mark = " ON LARGE OBJECT %d TO " % number
        return [grant for grant in self._grants if mark in grant]

    # Results

    def prove(self) -> bool:
        """Whether the database holds the same objects as before, except for the applied changes."""
        expected = dict(self._before)
        found = self.session.rows("SELECT hash, how, md5(a0) FROM %s WHERE state = 'applied'" % self._stage)
        for number, how, content in found:
            if how == "delete":
                del expected[number]
            else:
                expected[number] = content
        return expected == dict(self.session.rows(_PRINTS))

    def _identity(self) -> Tuple[str, Dict[str, str]]:
        return "key", {"oid": "s.hash"}
