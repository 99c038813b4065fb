# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of a table without a key: rows cannot be identified, only counted.

The change from one state of such a table to another is a difference of multisets: some equal rows more, some less. It
can be applied to any other state: rows are added, and equal rows are removed.
"""

from __future__ import annotations

from typing import Dict, Tuple

from ..base.tables import Table
from ..postgres import digests
from .changes import Databases, DoesNotFit
from .count import TableLoss
from .row_changes import CHOSEN, OTHER_VALUES, REFERRED_TO, RowChanges


class KeylessChanges(RowChanges):
    """The changes of one table without a key. Each staged row is one row more or one row less."""

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
        here = self._rows_query(live_table, self._live_columns(loss), "false", loss.hashed, loss, deletes)
        there = self._rows_query(base_table, self.columns, "false", loss.in_base(loss.hashed), loss, deletes)
        self._copy_both(databases, here, there, folder)
        self._stage_difference("insert", "after", "a", "before", "b")
        if deletes:
            self._stage_difference("delete", "before", "b", "after", "a")
        self._end_staging()

    def _stage_difference(self, how: str, more: str, side: str, less: str, other: str) -> None:
        fields = self._listed(side, first=", ")
        self.session.execute(
            "INSERT INTO %s (how, hash%s) SELECT '%s', d.* FROM (SELECT hash%s FROM pg_temp.backstop_%s EXCEPT ALL"
            " SELECT hash%s FROM pg_temp.backstop_%s) d"
            % (self._stage, fields, how, fields, more, self._listed(other, first=", "), less)
        )

    # SQL

    def _text(self, alias: str) -> str:
        """The row as a text, which identifies equal rows."""
        return digests.row_expression(self.columns, alias)

    def _among(self, side: str, chosen: str) -> str:
        """Condition that row t equals one of the chosen changes."""
        return "%s IN (SELECT %s FROM %s s WHERE %s)" % (self._text("t"), self._staged_text(side), self._stage, chosen)

    def _count(self, side: str, chosen: str) -> int:
        sql = "SELECT count(*) FROM ONLY %s t WHERE %s" % (self.target, self._among(side, chosen))
        return int(self.session.value(sql))

    # Applying

    def classify(self) -> None:
        """Set aside rows that are to be deleted but do not exist, or not often enough."""
        numbered = (
            "SELECT s.number, row_number() OVER (PARTITION BY %s ORDER BY s.number) AS copy, %s AS text FROM %s s"
            " WHERE s.how = 'delete'"
        ) % (self._staged_text("b"), self._staged_text("b"), self._stage)
        there = "SELECT %s AS text, count(*) AS copies FROM ONLY %s t GROUP BY 1" % (self._text("t"), self.target)
        missing = (
            "SELECT n.number FROM (%s) n LEFT JOIN (%s) o ON o.text = n.text WHERE n.copy > coalesce(o.copies, 0)"
        ) % (numbered, there)
        self._set("conflict", "the row was deleted there", "number IN (%s)" % missing)

    def delete(self) -> int:
        if self._refers:
            wanted = "SELECT %s FROM ONLY %s t WHERE %s" % (self._text("t"), self.target, " OR ".join(self._refers))
            self._set("waiting", REFERRED_TO, "how = 'delete' AND %s IN (%s)" % (self._staged_text("b"), wanted))
        statement = (
            "DELETE FROM ONLY %s WHERE ctid IN (SELECT x.ctid FROM (SELECT t.ctid, %s AS text, row_number() OVER"
            " (PARTITION BY %s) AS copy FROM ONLY %s t) x JOIN (SELECT %s AS text, count(*) AS copies FROM %s s"
            " WHERE " + CHOSEN + " GROUP BY 1) y ON x.text = y.text AND x.copy <= y.copies)"
        ) % (
            self.target,
            self._text("t"),
            self._text("t"),
            self.target,
            self._staged_text("b"),
            self._stage,
        )
        return self._apply("delete", statement)

    def upsert(self) -> int:
        return self._insert()

    def _apply_chosen(self, how: str, statement: str, chosen: str) -> int:
        """As many rows more, or less, equal to the changes."""
        wanted = int(self.session.value("SELECT count(*) FROM %s s WHERE %s" % (self._stage, chosen)))
        if not wanted:
            return 0
        side, sign = ("b", -1) if how == "delete" else ("a", 1)
        with self.session.savepoint():
            before = self._count(side, chosen)
            self.session.execute(statement.replace(CHOSEN, chosen))
            if self._count(side, chosen) - before != sign * wanted:
                raise DoesNotFit(OTHER_VALUES)
            return self.session.execute(
                "UPDATE %s s SET state = 'applied', reason = NULL WHERE %s" % (self._stage, chosen)
            )

    # Results

    def touched(self) -> Tuple[int, int]:
        row = self.session.one(
            "SELECT count(*), coalesce(sum(%s), 0) FROM %s t WHERE %s OR %s"
            % (
                digests.hash_expression(self.table.columns, "t"),
                self.table.source,
                self._among("a", "how = 'insert'"),
                self._among("b", "how = 'delete'"),
            )
        )
        return int(row[0]), int(row[1])

    def _identity(self) -> Tuple[str, Dict[str, str]]:
        return "row", {name: "coalesce(s.a%d, s.b%d)" % (place, place) for place, name in enumerate(self.columns)}
