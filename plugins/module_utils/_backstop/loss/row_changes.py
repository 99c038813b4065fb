# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of one table's rows, applied by key.

A change has the row's key and the row before and after it, each value as PostgreSQL's text. It is applied only if the
row is as it was before the change, and kept only if the row then reads exactly as the change says. Any other change is
left as a conflict with its reason; nothing is guessed.
"""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.sql_names import qualified, quote_identifier
from ..base.tables import Table
from ..postgres import digests, references
from ..postgres.connection import Session
from .changes import Changes, Databases, DoesNotFit
from .count import TableLoss, written_condition
from .differences import key_hash

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
#: Stands for the condition on the changes in statements that apply them; no column's name contains it.
CHOSEN = "\0"
NO_LARGE_OBJECT = "a large object that it refers to is not carried over"


class RowChanges(Changes):
    """The changes of one table."""

    def __init__(self, session: Session, table: Table, columns: Sequence[str], number: int) -> None:
        """
        :param table: the table in the target database
        :param columns: writable columns that both databases have; they include the table's key
        :param number: distinguishes the staging tables of a session
        """
        super().__init__(session, "backstop_changes_%d" % number, ["text"] * len(columns))
        self.table = table
        self.columns = list(columns)
        self.full_name = table.full_name
        self.target = qualified(table.schema, table.name)
        self._types = dict(zip(table.columns, table.types))
        self._key = [self.columns.index(name) for name in table.key]
        self._equals = references.equality_operators(session, table.oid, table.key) if table.key else []
        self._refers = [self._refers_to_row(key) for key in references.foreign_keys_to(session, table.oid)]

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
        :param folder: see _copy_both()
        """
        here = self._live_columns(loss)
        new = [name for name in live_table.writable_columns if name not in here]
        beyond = " OR ".join(written_condition(databases.live, live_table, name) for name in new) or "false"
        after = self._rows_query(live_table, here, "(%s)" % beyond, loss.hashed, loss, deletes)
        before = self._rows_query(base_table, self.columns, "false", loss.in_base(loss.hashed), loss, deletes)
        self._copy_both(databases, after, before, folder)
        self._pair_by_hash(" AND ".join("a.a%d = b.b%d" % (place, place) for place in self._key), deletes)
        self._end_staging()

    def _live_columns(self, loss: TableLoss) -> List[str]:
        """The live table's names of these columns."""
        here = dict(zip(loss.in_base(loss.columns), loss.columns))
        return [here[column] for column in self.columns]

    def _rows_query(
        self, table: Table, columns: Sequence[str], beyond: str, hashed: Sequence[str], loss: TableLoss, deletes: bool
    ) -> str:
        return "SELECT %s, %s%s FROM %s r__ WHERE %s = ANY('{%s}'::bigint[])" % (
            key_hash(hashed),
            beyond,
            "".join(", r__." + quote_identifier(column) for column in columns),
            table.source,
            key_hash(hashed),
            ",".join(map(str, [*loss.keys, *(loss.deleted_keys if deletes else [])])),
        )

    # SQL for a change s and a row t of the table

    def _cast(self, side: str, index: int) -> str:
        return "s.%s%d::%s" % (side, index, self._types[self.columns[index]])

    def _same_key(self) -> str:
        """Condition that the row has the change's key."""
        return " AND ".join(
            "t.%s %s (coalesce(s.a%d, s.b%d))::%s" % (quote_identifier(name), operator, place, place, self._types[name])
            for name, operator, place in zip(self.table.key, self._equals, self._key)
        )

    def _refers_to_row(self, key: references.ForeignKey) -> str:
        """Condition that another row refers to row t."""
        condition = key.matches("t", "c__")
        if key.oid == self.table.oid and self.table.key:
            own = [digests.row_expression(self.table.key, alias) for alias in ("c__", "t")]
            condition += " AND %s <> %s" % (own[0], own[1])
        return "EXISTS (SELECT FROM %s c__ WHERE %s)" % (key.source, condition)

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
        return "%s = %s" % (digests.row_expression(self.columns, "t"), self._staged_text(side))

    def _staged_text(self, side: str) -> str:
        return "ROW(%s)::text" % self._listed(side, alias="s.")

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

    def delete(self) -> int:
        """Delete the rows that no other row refers to; the number of changes applied.

        If other rows refer to a row, ON DELETE might change or delete them, so the row waits for them.
        """
        if self._refers:
            self._set("waiting", REFERRED_TO, "how = 'delete' AND " + self._exists(" OR ".join(self._refers)))
        statement = "DELETE FROM ONLY %s t USING %s s WHERE %s AND %s"
        return self._apply("delete", statement % (self.target, self._stage, CHOSEN, self._same_key()))

    def upsert(self) -> int:
        """Update and insert; the number of changes applied."""
        fixed = {*self.table.key, *references.always_identity(self.session, self.table.oid)}
        names = [name for name in self.columns if name not in fixed]
        updated = 0
        if names:
            values = ["%s = %s" % (quote_identifier(name), self._cast("a", self.columns.index(name))) for name in names]
            updated = self._apply(
                "update",
                "UPDATE ONLY %s t SET %s FROM %s s WHERE %s AND %s"
                % (self.target, ", ".join(values), self._stage, CHOSEN, self._same_key()),
            )
        return updated + self._insert()

    def _insert(self) -> int:
        return self._apply(
            "insert",
            "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s s WHERE %s"
            % (
                self.target,
                ", ".join(map(quote_identifier, self.columns)),
                ", ".join(self._cast("a", index) for index in range(len(self.columns))),
                self._stage,
                CHOSEN,
            ),
        )

    def _apply(self, how: str, statement: str) -> int:
        """Apply the pending changes of one kind; ranges with a failing change are halved.

        :param statement: with CHOSEN
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
        with self.session.savepoint():
            self.session.execute(statement.replace(CHOSEN, chosen))
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

    def _identity(self) -> Tuple[str, Dict[str, str]]:
        return "key", {self.columns[place]: "coalesce(s.a%d, s.b%d)" % (place, place) for place in self._key}


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
