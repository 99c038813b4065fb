# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of one table's rows: staged in a temporary table of the target database, applied by key, reverted.

A change has the row's key and the row before and after it, each value as PostgreSQL's text. It is applied only if the
row is as it was before the change, and kept only if the row then reads exactly as the change says. Any other change is
left as a conflict with its reason; nothing is guessed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple, cast

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.sql_names import qualified, quote_identifier, quote_literal
from ..base.tables import Digest, Table
from ..postgres import digests
from ..postgres.connection import Session
from .count import TableLoss, written_condition
from .differences import key_hash
from .pairing import Name

#: Maximum number of conflicts of a table that are narrowed down to single rows; above it, ranges are left unapplied.
_MOST_CONFLICTS = 1000
#: Classes of errors that concern a row itself, so that trying again does not help.
_ROW_ERRORS = (
    sqlstates.DATA_EXCEPTION, sqlstates.INTEGRITY_CONSTRAINT_VIOLATION, sqlstates.WITH_CHECK_OPTION_VIOLATION,
)  # fmt: skip
_REASONS = {
    sqlstates.FOREIGN_KEY_VIOLATION: "a row that it refers to is missing",
    sqlstates.UNIQUE_VIOLATION: "a unique value is taken by another row",
    sqlstates.NOT_NULL_VIOLATION: "a column that must have a value would have none",
}
OTHER_VALUES = "it would not keep its values: a column has another type or a rule changes it"
REFERRED_TO = "other rows refer to it"
NO_LARGE_OBJECT = "a large object that it refers to is not carried over"


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


class RowChanges:
    """The changes of one table."""

    #: how much data between the databases is held in memory
    SPOOL_BYTES = 16 << 20

    def __init__(self, session: Session, table: Table, columns: Sequence[str], number: int) -> None:
        """Create the empty staging table.

        :param session: in the target database, in a transaction
        :param table: the table there
        :param columns: writable columns that both databases have; they include the table's key
        :param number: distinguishes the staging tables of a session
        """
        self.session = session
        self.table = table
        self.columns = list(columns)
        self.target = qualified(table.schema, table.name)
        self._stage = "pg_temp.backstop_changes_%d" % number
        self._types = dict(zip(table.columns, table.types))
        self._fixed = self._always_identity()
        columns_sql = ["%s%d text" % (side, index) for side in "ab" for index in range(len(self.columns))]
        session.execute(
            "CREATE TEMPORARY TABLE backstop_changes_%d (number bigint GENERATED ALWAYS AS IDENTITY, hash bigint,"
            " how text NOT NULL, beyond boolean NOT NULL DEFAULT false, state text NOT NULL DEFAULT 'pending',"
            " reason text, %s) ON COMMIT DROP" % (number, ", ".join(columns_sql))
        )

    @property
    def full_name(self) -> str:
        return self.table.full_name

    def _always_identity(self) -> List[str]:
        """Columns that UPDATE cannot set."""
        found = self.session.rows(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = %s AND attidentity = 'a'", (self.table.oid,)
        )
        return [str(name) for (name,) in found]

    # Staging

    def stage(
        self,
        databases: Databases,
        live_table: Table,
        base_table: Table,
        loss: TableLoss,
        *,
        deletes: bool,
        folder: str,
    ) -> None:
        """Stage the rows with the loss's keys as they are in the live database and as they were in the base.

        :param deletes: also stage rows that the live database lacks
        :param folder: private directory for data that does not fit into memory
        """
        here = self._live_columns(loss)
        new = [name for name in live_table.writable_columns if name not in here]
        beyond = " OR ".join(written_condition(databases.live, live_table, name) for name in new) or "false"
        after = self._rows_query(live_table, here, "(%s)" % beyond, loss.hashed, loss, deletes)
        before = self._rows_query(base_table, self.columns, "false", loss.in_base(loss.hashed), loss, deletes)
        self._copy_both(databases, after, before, folder)
        places = [self.columns.index(name) for name in self.table.key]
        same_key = " AND ".join("a.a%d = b.b%d" % (place, place) for place in places)
        self.session.execute(
            "INSERT INTO %s (hash, how, beyond, %s) SELECT coalesce(a.hash, b.hash), CASE WHEN b.hash IS NULL THEN"
            " 'insert' WHEN a.hash IS NULL THEN 'delete' ELSE 'update' END, coalesce(a.beyond, false), %s"
            " FROM pg_temp.backstop_after a FULL JOIN pg_temp.backstop_before b ON a.hash = b.hash AND %s%s"
            % (
                self._stage,
                self._both_sides(),
                self._both_sides(),
                same_key,
                "" if deletes else " WHERE a.hash IS NOT NULL",
            )
        )
        self.session.execute("DROP TABLE pg_temp.backstop_after, pg_temp.backstop_before")
        self.session.execute("ANALYZE " + self._stage)

    def _live_columns(self, loss: TableLoss) -> List[str]:
        """The live table's names of these columns."""
        here = dict(zip(loss.in_base(loss.columns), loss.columns))
        return [here[column] for column in self.columns]

    def _rows_query(
        self, table: Table, columns: Sequence[str], beyond: str, hashed: Sequence[str], loss: TableLoss, deletes: bool
    ) -> str:
        return "COPY (SELECT %s, %s, %s FROM %s r__ WHERE %s = ANY('{%s}'::bigint[])) TO STDOUT" % (
            key_hash(hashed),
            beyond,
            ", ".join("r__." + quote_identifier(column) for column in columns),
            table.source,
            key_hash(hashed),
            ",".join(map(str, [*loss.keys, *(loss.deleted_keys if deletes else [])])),
        )

    def _copy_both(self, databases: Databases, after: str, before: str, folder: str) -> None:
        sides = ((databases.live, after, "after", "a"), (databases.base, before, "before", "b"))
        for session, query, name, side in sides:
            with tempfile.SpooledTemporaryFile(max_size=self.SPOOL_BYTES, dir=folder) as spool:
                session.copy_out(query, cast(IO[bytes], spool))
                self._copy_in(name, side, cast(IO[bytes], spool))

    def _copy_in(self, name: str, side: str, spool: IO[bytes]) -> None:
        fields = ", ".join("%s%d text" % (side, index) for index in range(len(self.columns)))
        self.session.execute(
            "CREATE TEMPORARY TABLE backstop_%s (hash bigint, beyond boolean, %s) ON COMMIT DROP" % (name, fields)
        )
        spool.seek(0)
        self.session.copy_in("COPY pg_temp.backstop_%s FROM STDIN" % name, spool)
        self.session.execute("ANALYZE pg_temp.backstop_%s" % name)

    def save(self, stream: IO[bytes]) -> None:
        """Write the applied changes, for load()."""
        query = "SELECT how, %s FROM %s WHERE state = 'applied'" % (self._both_sides(), self._stage)
        self.session.copy_out("COPY (%s) TO STDOUT" % query, stream)

    def load(self, stream: IO[bytes]) -> None:
        """Stage saved changes."""
        self.session.copy_in("COPY %s (how, %s) FROM STDIN" % (self._stage, self._both_sides()), stream)
        self.session.execute("ANALYZE " + self._stage)

    def invert(self) -> None:
        """Invert the changes: applying them then reverts them."""
        swap = ", ".join("a{0} = b{0}, b{0} = a{0}".format(index) for index in range(len(self.columns)))
        self.session.execute(
            "UPDATE %s SET how = CASE how WHEN 'insert' THEN 'delete' WHEN 'delete' THEN 'insert' ELSE how END, %s"
            % (self._stage, swap)
        )

    def _both_sides(self) -> str:
        return ", ".join("%s%d" % (side, index) for side in "ab" for index in range(len(self.columns)))

    # SQL for a change s and a row t of the table

    def _cast(self, side: str, index: int) -> str:
        return "s.%s%d::%s" % (side, index, self._types[self.columns[index]])

    def _same_key(self) -> str:
        """Condition that the row has the change's key."""
        conditions = []
        for name in self.table.key:
            index = self.columns.index(name)
            value, column = "coalesce(s.a%d, s.b%d)" % (index, index), "t." + quote_identifier(name)
            conditions.append(self._equals(column, value, name))
        return " AND ".join(conditions)

    def _equals(self, column: str, text: str, name: str) -> str:
        """User-defined types are compared by their text: their operators are not in the search path."""
        kind = self._types[name]
        return "format('%%s', %s) = %s" % (column, text) if "." in kind else "%s = (%s)::%s" % (column, text, kind)

    def refuse_references(self, objects: Sequence[int]) -> int:
        """Set aside rows that refer to large objects which are not carried: their oids may belong to others."""
        kinds = ("oid", "lo")
        places = [
            index for index, name in enumerate(self.columns) if self._types[name].split(".")[-1].strip('"') in kinds
        ]
        if not places or not objects:
            return 0
        numbers = ", ".join("'%d'" % one for one in objects)
        refers = " OR ".join("s.a%d IN (%s)" % (place, numbers) for place in places)
        return self._set("conflict", NO_LARGE_OBJECT, "how <> 'delete' AND (%s)" % refers)

    def _reads(self, side: str) -> str:
        """Condition that the row has the change's values."""
        texts = ", ".join("s.%s%d" % (side, index) for index in range(len(self.columns)))
        return "%s = ROW(%s)::text" % (digests.row_expression(self.columns, "t"), texts)

    def _exists(self, condition: str = "true") -> str:
        return "EXISTS (SELECT FROM ONLY %s t WHERE %s AND (%s))" % (self.target, self._same_key(), condition)

    # Applying

    def classify(self) -> None:
        """Set aside the changes that are in force already, and those whose row differs from before the change."""
        done = "how <> 'delete' AND %s OR how = 'delete' AND NOT %s" % (self._exists(self._reads("a")), self._exists())
        self._set("same", None, done)
        self._set("conflict", "another row of this key is there", "how = 'insert' AND " + self._exists())
        self._set("conflict", "the row was deleted there", "how <> 'insert' AND NOT " + self._exists())
        self._set(
            "conflict",
            "the row was changed on both sides",
            "how <> 'insert' AND NOT %s" % self._exists(self._reads("b")),
        )

    def _set(self, state: str, reason: Optional[str], condition: str) -> int:
        return self.session.execute(
            "UPDATE %s s SET state = %s, reason = %s WHERE state IN ('pending', 'waiting') AND (%s)"
            % (self._stage, quote_literal(state), quote_literal(reason) if reason else "NULL", condition)
        )

    def begin_round(self) -> None:
        """Try again what could not be applied yet."""
        self.session.execute("UPDATE %s SET state = 'pending' WHERE state = 'waiting'" % self._stage)

    def waiting_for_others(self) -> int:
        """Number of changes that may become possible when other rows exist."""
        return int(
            self.session.value(
                "SELECT count(*) FROM %s WHERE state = 'waiting' AND reason = %%s" % self._stage,
                (_REASONS[sqlstates.FOREIGN_KEY_VIOLATION],),
            )
        )

    def delete(self, references: Sequence["Reference"]) -> int:
        """Delete the rows that no other row refers to; the number of changes applied.

        If other rows refer to a row, ON DELETE might change or delete them, so the row waits for them.
        """
        refers = " OR ".join(reference.exists() for reference in references)
        self._set("waiting", REFERRED_TO, "how = 'delete' AND " + self._exists(refers) if refers else "false")
        return self._apply("delete", "DELETE FROM ONLY %s t USING %s s WHERE " % (self.target, self._stage))

    def upsert(self) -> int:
        """Update and insert; the number of changes applied."""
        names = [name for name in self.columns if name not in self.table.key and name not in self._fixed]
        updated = 0
        if names:
            values = ["%s = %s" % (quote_identifier(name), self._cast("a", self.columns.index(name))) for name in names]
            updated = self._apply(
                "update",
                "UPDATE ONLY %s t SET %s FROM %s s WHERE " % (self.target, ", ".join(values), self._stage),
            )
        statement = "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s s WHERE " % (
            self.target,
            ", ".join(map(quote_identifier, self.columns)),
            ", ".join(self._cast("a", index) for index in range(len(self.columns))),
            self._stage,
        )
        return updated + self._apply("insert", statement)

    def _apply(self, how: str, statement: str) -> int:
        """Apply the pending changes of one kind; ranges with a failing change are halved.

        :param statement: to be followed by the condition on the changes
        """
        low, high = self.session.one(
            "SELECT min(number), max(number) FROM %s WHERE state = 'pending' AND how = %%s" % self._stage, (how,)
        )
        if low is None:
            return 0
        applied, conflicts = 0, 0
        ranges = [(int(low), int(high))]
        while ranges:
            low, high = ranges.pop()
            chosen = "s.state = 'pending' AND s.how = '%s' AND s.number BETWEEN %d AND %d" % (how, low, high)
            try:
                applied += self._apply_chosen(how, statement, chosen)
            except BackstopError as error:
                reason = _reason(error)
                if low < high and conflicts < _MOST_CONFLICTS:
                    middle = (low + high) // 2
                    ranges += [(middle + 1, high), (low, middle)]
                else:
                    conflicts += self._set("waiting", reason, chosen)
        return applied

    def _apply_chosen(self, how: str, statement: str, chosen: str) -> int:
        """Apply some changes as one statement, or none of them."""
        if not self.session.value("SELECT 1 FROM %s s WHERE %s LIMIT 1" % (self._stage, chosen)):
            return 0
        gone = how == "delete"
        condition = chosen if how == "insert" else "%s AND %s" % (chosen, self._same_key())
        with savepoint(self.session):
            self.session.execute(statement + condition)
            in_force = "NOT " + self._exists() if gone else self._exists(self._reads("a"))
            reached = self.session.execute(
                "UPDATE %s s SET state = 'applied', reason = NULL WHERE %s AND %s" % (self._stage, chosen, in_force)
            )
            if self.session.value("SELECT 1 FROM %s s WHERE %s LIMIT 1" % (self._stage, chosen)):
                raise DoesNotFit(OTHER_VALUES)
        return reached

    def give_up(self) -> None:
        """Mark what could not be applied as a conflict."""
        self.session.execute("UPDATE %s SET state = 'conflict' WHERE state IN ('pending', 'waiting')" % self._stage)

    # Results

    def touched(self) -> Tuple[int, int]:
        """Number and sum of hashes, over all columns, of the table's rows that have changes."""
        row = self.session.one(
            "SELECT count(*), coalesce(sum(%s), 0) FROM %s t WHERE EXISTS (SELECT FROM %s s WHERE %s)"
            % (digests.hash_expression(self.table.columns, "t"), self.table.source, self._stage, self._same_key())
        )
        return int(row[0]), int(row[1])

    def counts(self) -> Dict[Tuple[str, str, bool], int]:
        """Number of changes by how, state, and whether the live row has values in columns that this database lacks."""
        found = self.session.rows("SELECT how, state, beyond, count(*) FROM %s GROUP BY 1, 2, 3" % self._stage)
        return {(str(how), str(state), bool(beyond)): int(count) for how, state, beyond, count in found}

    def reasons(self) -> List[Tuple[str, int]]:
        found = self.session.rows(
            "SELECT reason, count(*) FROM %s WHERE state = 'conflict' GROUP BY 1 ORDER BY 1" % self._stage
        )
        return [(str(reason), int(count)) for reason, count in found]

    def left_hashes(self) -> List[int]:
        """Key hashes of live rows that were not, or not completely, carried to this database."""
        found = self.session.rows(
            "SELECT hash FROM %s WHERE how <> 'delete' AND (state = 'conflict' OR beyond)" % self._stage
        )
        return [int(hash_) for (hash_,) in found]

    def conflicts(self) -> List[Dict[str, Any]]:
        """Each conflict with its key, for a private file."""
        places = [self.columns.index(name) for name in self.table.key]
        found = self.session.rows(
            "SELECT how, reason, %s FROM %s s WHERE state = 'conflict' ORDER BY number"
            % (", ".join("coalesce(s.a%d, s.b%d)" % (place, place) for place in places), self._stage)
        )
        return [
            {"table": self.full_name, "key": dict(zip(self.table.key, key)), "change": how, "reason": reason}
            for how, reason, *key in found
        ]


class Reference:
    """A foreign key of a table, perhaps the same one, to the table whose rows are to be deleted."""

    def __init__(self, child: str, pairs: Sequence[Tuple[str, str, str]], same_table: bool, key: Sequence[str]) -> None:
        """
        :param child: qualified name of the referring table
        :param pairs: referring column, column that it refers to, type of the latter
        :param same_table: the table refers to itself
        :param key: the table's key, to recognise a row that refers only to itself
        """
        self._child = child
        self._pairs = pairs
        self._itself = list(key) if same_table else []

    def exists(self) -> str:
        """Condition that another row refers to row t."""
        conditions = []
        for referring, referred, kind in self._pairs:
            one, two = "c__." + quote_identifier(referring), "t." + quote_identifier(referred)
            text = "format('%%s', %s) = format('%%s', %s)"
            conditions.append((text if "." in kind else "%s = %s") % (one, two))
        if self._itself:
            conditions.append(
                "%s <> %s" % (digests.row_expression(self._itself, "c__"), digests.row_expression(self._itself, "t"))
            )
        return "EXISTS (SELECT FROM %s c__ WHERE %s)" % (self._child, " AND ".join(conditions))


@contextlib.contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """Undo the block's changes if it fails; the transaction continues."""
    session.execute("SAVEPOINT backstop_change")
    try:
        yield
    except BackstopError:
        session.execute("ROLLBACK TO SAVEPOINT backstop_change")
        session.execute("RELEASE SAVEPOINT backstop_change")
        raise
    session.execute("RELEASE SAVEPOINT backstop_change")


def _reason(error: BackstopError) -> str:
    """Why a row cannot be applied, without row values.

    :raises BackstopError: the error itself, if it does not concern a row
    """
    if isinstance(error, DoesNotFit):
        return error.message
    state = error.sqlstate or ""
    if error.sqlstate_class not in _ROW_ERRORS:
        raise error
    diagnosis = getattr(error.__cause__, "diag", None)
    return _REASONS.get(state) or str(getattr(diagnosis, "message_primary", None) or "SQLSTATE " + state)
