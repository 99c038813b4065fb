# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes between two databases, staged in a temporary table of a third one, to which they are applied.

Each is an insert, an update or a delete, with the values after and before it (a0, a1, ... and b0, b1, ...). Its state
is pending, waiting (for others to be applied), applied, same (it was in force already) or conflict, with the reason.
"""

from __future__ import annotations

import dataclasses
import tempfile
from typing import IO, Any, Dict, List, Optional, Sequence, Tuple, cast

from ..base.errors import BackstopError
from ..base.sql_names import quote_literal
from ..base.tables import Digest
from ..postgres.connection import Session
from .pairing import Name

#: Number of changes by how, state, and whether the live row has values in columns that the other database lacks.
Counts = Dict[Tuple[str, str, bool], int]
#: How much data between the databases is held in memory.
_SPOOL_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Databases:
    """The databases between which rows are carried."""

    live: Session
    #: the database that the live one is compared with; for a revert the target itself
    base: Session
    #: in a database that no one else uses; the transaction runs here
    target: Session
    #: digest of each table of the target as it must be before; None accepts any
    before: Optional[Dict[Name, Digest]] = None


class DoesNotFit(BackstopError):
    """Rows did not read as the changes say."""


class Changes:
    """The changes of one table, or of the large objects."""

    full_name: str

    def __init__(self, session: Session, stage: str, types: Sequence[str]) -> None:
        """Create the empty staging table.

        :param session: in the target database, in a transaction
        :param stage: name of the staging table
        :param types: of the values
        """
        self.session = session
        self._stage = "pg_temp." + stage
        self._types_of_values = types
        session.execute(
            "CREATE TEMPORARY TABLE %s (number bigint GENERATED ALWAYS AS IDENTITY, hash bigint, how text NOT NULL,"
            " beyond boolean NOT NULL DEFAULT false, state text NOT NULL DEFAULT 'pending', reason text%s)"
            " ON COMMIT DROP" % (stage, self._listed("ab", typed=True, first=", "))
        )

    def _listed(self, sides: str, *, alias: str = "", typed: bool = False, first: str = "") -> str:
        """The columns with the values of one side or both.

        :param first: precedes them if there are any
        """
        names = [
            "%s%s%d%s" % (alias, side, place, " " + kind if typed else "")
            for side in sides
            for place, kind in enumerate(self._types_of_values)
        ]
        return first + ", ".join(names) if names else ""

    # Staging

    def _copy_both(self, databases: Databases, after: str, before: str, folder: str) -> None:
        """Copy the results of two queries (hash, whether there is more, values) into temporary tables.

        :param folder: private directory for data that does not fit into memory
        """
        sides = ((databases.live, after, "after", "a"), (databases.base, before, "before", "b"))
        for session, query, name, side in sides:
            self.session.execute(
                "CREATE TEMPORARY TABLE backstop_%s (hash bigint, beyond boolean%s) ON COMMIT DROP"
                % (name, self._listed(side, typed=True, first=", "))
            )
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=folder) as spool:
                session.copy_out("COPY (%s) TO STDOUT" % query, cast(IO[bytes], spool))
                spool.seek(0)
                self.session.copy_in("COPY pg_temp.backstop_%s FROM STDIN" % name, cast(IO[bytes], spool))
            self.session.execute("ANALYZE pg_temp.backstop_%s" % name)

    def _pair_by_hash(self, same_key: str, deletes: bool) -> None:
        """Stage what differs between the two temporary tables.

        :param same_key: condition on rows a and b with the same hash
        :param deletes: also stage what only the base has
        """
        both = self._listed("ab")
        self.session.execute(
            "INSERT INTO %s (hash, how, beyond, %s) SELECT coalesce(a.hash, b.hash), CASE WHEN b.hash IS NULL THEN"
            " 'insert' WHEN a.hash IS NULL THEN 'delete' ELSE 'update' END, coalesce(a.beyond, false), %s"
            " FROM pg_temp.backstop_after a FULL JOIN pg_temp.backstop_before b ON a.hash = b.hash AND %s%s"
            % (self._stage, both, both, same_key, "" if deletes else " WHERE a.hash IS NOT NULL")
        )

    def _end_staging(self) -> None:
        self.session.execute("DROP TABLE pg_temp.backstop_after, pg_temp.backstop_before")
        self.session.execute("ANALYZE " + self._stage)

    def save(self, stream: IO[bytes]) -> None:
        """Write the applied changes, for load()."""
        query = "SELECT hash, how%s FROM %s WHERE state = 'applied'" % (self._listed("ab", first=", "), self._stage)
        self.session.copy_out("COPY (%s) TO STDOUT" % query, stream)

    def load(self, stream: IO[bytes]) -> None:
        """Stage saved changes."""
        listed = self._listed("ab", first=", ")
        self.session.copy_in("COPY %s (hash, how%s) FROM STDIN" % (self._stage, listed), stream)
        self.session.execute("ANALYZE " + self._stage)

    def invert(self) -> None:
        """Invert the changes: applying them then reverts them."""
        places = range(len(self._types_of_values))
        self.session.execute(
            "UPDATE %s SET how = CASE how WHEN 'insert' THEN 'delete' WHEN 'delete' THEN 'insert' ELSE how END%s"
            % (self._stage, "".join(", a{0} = b{0}, b{0} = a{0}".format(place) for place in places))
        )

    # States

    def _set(self, state: str, reason: Optional[str], condition: str) -> int:
        return self.session.execute(
            "UPDATE %s s SET state = %s, reason = %s WHERE state IN ('pending', 'waiting') AND (%s)"
            % (self._stage, quote_literal(state), quote_literal(reason) if reason else "NULL", condition)
        )

    # Results

    def counts(self) -> Counts:
        found = self.session.rows("SELECT how, state, beyond, count(*) FROM %s GROUP BY 1, 2, 3" % self._stage)
        return {(str(how), str(state), bool(beyond)): int(count) for how, state, beyond, count in found}

    def reasons(self) -> List[Tuple[str, int]]:
        """Why changes were not applied, and how many."""
        found = self.session.rows(
            "SELECT reason, count(*) FROM %s WHERE state = 'conflict' GROUP BY 1 ORDER BY 1" % self._stage
        )
        return [(str(reason), int(count)) for reason, count in found]

    def left_hashes(self) -> List[int]:
        """Hashes of what was not, or not completely, carried to this database; of large objects their oids."""
        found = self.session.rows(
            "SELECT hash FROM %s WHERE how <> 'delete' AND (state = 'conflict' OR beyond)" % self._stage
        )
        return [int(hash_) for (hash_,) in found]

    def conflicts(self) -> List[Dict[str, Any]]:
        """Each conflict as JSON, for a private file."""
        label, values = self._identity()
        found = self.session.rows(
            "SELECT how, reason%s FROM %s s WHERE state = 'conflict' ORDER BY number"
            % ("".join(", " + sql for sql in values.values()), self._stage)
        )
        return [
            {"table": self.full_name, label: dict(zip(values, row)), "change": how, "reason": reason}
            for how, reason, *row in found
        ]

    def _identity(self) -> Tuple[str, Dict[str, str]]:
        """What identifies a change s: ``key`` or ``row``, and the SQL of each of its columns."""
        raise NotImplementedError
