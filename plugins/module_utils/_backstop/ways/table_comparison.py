# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing one live table with the rows of a backup: the differences, and the effects of a restore.

The backup's rows are loaded into a temporary table, proved to be those of the manifest, and compared with the live
ones. All of this happens in the caller's open transaction, and ends with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Set

from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.remedies import Action, remedy
from ..base.sql_names import qualified, quote_identifier
from ..base.tables import Digest, Table
from ..postgres import digests, references
from ..postgres.catalog import TableFamily
from ..postgres.connection import Session
from ..store.layout import BackupPlace
from ..store.manifest import Manifest, TableEntry
from .archived_rows import ArchivedRows
from .row_selection import condition_errors

#: Number of keys of differing rows in a report, for each kind.
SAMPLES = 5
#: Effects of a foreign key on rows that refer to a deleted row, or to a changed value.
_ON_DELETE = {"c": "deletes rows", "n": "sets columns to NULL", "d": "sets columns to their default"}
_ON_UPDATE = {**_ON_DELETE, "c": "follows the new value"}
REFUSES = "refuses"


@dataclasses.dataclass
class Pair:
    """A live table, and the backup's rows of it in a temporary table."""

    table: Table
    #: the table's entry in the manifest; None for a partition that the backup does not have
    entry: Optional[TableEntry]
    #: temporary tables: the backup's rows, and the differences
    stage: str
    difference: str
    #: columns in the order of the digests
    columns: List[str]
    #: ctids of live rows that cannot be read
    unreadable: List[str] = dataclasses.field(default_factory=list)

    @property
    def live(self) -> str:
        """The FROM item for reading the live rows; use ``target`` to write them."""
        return self.table.source

    @property
    def target(self) -> str:
        return "ONLY " + qualified(self.table.schema, self.table.name)

    @property
    def wanted(self) -> Digest:
        """The backup's digest of the table."""
        return self.entry.digest if self.entry else Digest(0, "0")

    @property
    def writable(self) -> List[str]:
        return [column for column in self.columns if column not in self.table.generated]

    def live_text(self, alias: str) -> str:
        """SQL for the text of a live row; NULL for one that cannot be read."""
        text = digests.row_expression(self.columns, alias)
        if not self.unreadable:
            return text
        return "CASE WHEN %s.ctid = ANY('{%s}'::tid[]) THEN NULL ELSE %s END" % (
            alias,
            ",".join('"%s"' % place for place in self.unreadable),
            text,
        )

    def same_key(self, session: Session, one: str, other: str) -> str:
        """Condition that the rows of two aliases have the same key."""
        operators = references.equality_operators(session, self.table.oid, self.table.key)
        return " AND ".join(
            "%s.%s %s %s.%s" % (one, quote_identifier(column), operator, other, quote_identifier(column))
            for column, operator in zip(self.table.key, operators)
        )


@dataclasses.dataclass
class Difference:
    """How a live table differs from a backup."""

    table: str
    missing: int = 0
    changed: int = 0
    newer: int = 0
    #: keys of the first rows of each kind
    samples: Dict[str, List[Dict[str, Any]]] = dataclasses.field(default_factory=dict)
    #: what foreign keys would do to rows of other tables
    effects: List[Dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def total(self) -> int:
        return self.missing + self.changed + self.newer

    def to_json(self) -> Dict[str, Any]:
        return {**dataclasses.asdict(self), "total": self.total}

    def __str__(self) -> str:
        if not self.total:
            return "%s is as in the backup" % self.table
        said = "%s: %d missing, %d changed, %d newer than the backup" % (
            self.table,
            self.missing,
            self.changed,
            self.newer,
        )
        return said + "".join(map(self._such_as, ("missing", "changed", "newer")))

    def _such_as(self, kind: str) -> str:
        first = [", ".join("%s=%s" % pair for pair in key.items()) for key in self.samples.get(kind, [])[:3]]
        return " (%s: such as %s)" % (kind, "; ".join(first)) if first else ""


# Pairing


def pair_up(family: TableFamily, manifest: Manifest, prefix: str = "") -> List[Pair]:
    """The live tables of a family, each with its entry in the manifest.

    :param prefix: distinguishes the temporary tables from those of another backup
    :raises Refused: the backup does not have them, or has other columns
    """
    pairs = []
    for number, table in enumerate(family.leaves):
        entry = manifest.table(table.schema, table.name)
        if entry is not None:
            _require_same_columns(table, entry, manifest.id)
        names = ["pg_temp.backstop_%s%s_%d" % (prefix, what, number) for what in ("rows", "diff")]
        columns = list(entry.table.columns if entry else table.columns)
        pairs.append(Pair(table, entry, names[0], names[1], columns))
    gone = _partitions_of(family, manifest) - {table.full_name for table in family.leaves}
    if not any(pair.entry for pair in pairs) or gone:
        what = "partition %s of it is not there" % ", ".join(sorted(gone)) if gone else "nothing of this table"
        raise Refused(
            "Backup %s cannot restore table %s" % (manifest.id, family.full_name),
            found=what if gone else "%s among its %d tables" % (what, len(manifest.tables)),
            hint="make the partition first"
            if gone
            else remedy("choose another backup; %s shows what each holds", Action.LIST_BACKUPS),
        )
    return pairs


def _partitions_of(family: TableFamily, manifest: Manifest) -> Set[str]:
    """Full names of the family's partitions when the backup was made."""
    if not family.partitioned:
        return set()
    parents = {family.full_name}
    found: Set[str] = set()
    definitions = {
        key[len("relation ") :]: text for key, text in manifest.definitions.items() if key.startswith("relation ")
    }
    rows = set(manifest.table_names)
    while True:
        children = (
            {
                name
                for name, text in definitions.items()
                if any(text.endswith("; parents " + parent) for parent in parents)
            }
            - parents
            - found
        )
        if not children:
            return found
        found |= children & rows
        parents |= children - rows


def _require_same_columns(table: Table, entry: TableEntry, backup: str) -> None:
    live = dict(zip(table.columns, table.types))
    saved = dict(zip(entry.table.columns, entry.table.types))
    if live == saved and set(table.generated) == set(entry.table.generated):
        return
    differing = ["no %s" % name for name in saved if name not in live]
    differing += ["%s is new" % name for name in live if name not in saved]
    differing += [
        "%s is %s, was %s" % (name, live[name], saved[name])
        for name in live
        if name in saved and live[name] != saved[name]
    ]
    raise Refused(
        "Table %s has other columns than in backup %s" % (table.full_name, backup),
        found="; ".join(differing) or "other generated columns",
        expected="the columns of the backup",
        hint=remedy("choose a backup from after that change, or revert completely: %s", Action.COMPLETE),
    )


# Staging


def stage(archived: ArchivedRows, pairs: Sequence[Pair]) -> None:
    """Load the backup's rows into temporary tables and prove that they are those of the manifest."""
    session = archived.session
    for pair in pairs:
        session.execute(
            "CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING GENERATED) ON COMMIT DROP"
            % (pair.stage.split(".", 1)[1], qualified(pair.table.schema, pair.table.name))
        )
        if pair.entry is not None:
            archived.copy(pair.entry.table, pair.stage, pair.writable)
        _prove_stage(session, pair, archived.place)
        reach("table.staged")


def _prove_stage(session: Session, pair: Pair, place: BackupPlace) -> None:
    found = digests.table_digest(session, pair.stage, pair.columns)
    if found != pair.wanted:
        raise BackstopError(
            "The rows of table %s in backup %s are not those of its manifest" % (pair.table.full_name, place.backup_id),
            found="%d rows, digest %s" % (found.rows, found.hash),
            expected="%d rows, digest %s" % (pair.wanted.rows, pair.wanted.hash),
            hint="use another backup; nothing was changed",
        )
    listed = ", ".join(quote_identifier(column) for column in pair.table.key)
    if listed:
        try:
            session.execute("CREATE UNIQUE INDEX ON %s (%s)" % (pair.stage, listed))
        except BackstopError as error:
            raise Refused(
                "Rows of the backup have the same key, by which table %s tells rows now" % pair.table.full_name,
                found=error.found,
                hint=remedy("revert completely: %s", Action.COMPLETE),
            ) from error
    # Rows are joined by the key alone.
    session.execute("ANALYZE %s%s" % (pair.stage, " (%s)" % listed if listed else ""))


# Comparing


def compare(session: Session, pair: Pair, condition: Optional[str] = None) -> Difference:
    """Find the differing rows; they are then in the pair's temporary table ``difference``.

    :param condition: only rows that meet it, in the live table or in the backup
    """
    # live and staged are the ctid of a row, or NULL; no other session writes to either table meanwhile.
    session.execute(
        "CREATE TEMPORARY TABLE %s ON COMMIT DROP AS %s"
        % (pair.difference.split(".", 1)[1], _by_key(session, pair) if pair.table.key else _as_multisets(pair))
    )
    if condition:
        chosen = "EXISTS (SELECT FROM (SELECT ctid AS place__ FROM %s %s WHERE (%s\n)) x__ WHERE x__.place__ = d__.%s)"
        # Under the table's own name, so that a condition may use it.
        alias = quote_identifier(pair.table.name)
        with condition_errors(pair.table):
            session.execute(
                "DELETE FROM %s d__ WHERE NOT %s AND NOT %s"
                % (
                    pair.difference,
                    chosen % (pair.live, alias, condition, "live"),
                    chosen % (pair.stage, alias, condition, "staged"),
                )
            )
    session.execute("ANALYZE %s" % pair.difference)
    counts = {
        str(kind): int(rows)
        for kind, rows in session.rows("SELECT kind, count(*) FROM %s GROUP BY 1" % pair.difference)
    }
    found = Difference(pair.table.full_name, counts.get("missing", 0), counts.get("changed", 0), counts.get("newer", 0))
    found.samples = {kind: _samples(session, pair, kind) for kind in sorted(counts)} if pair.table.key else {}
    found.effects = effects(session, pair)
    return found


def staged_alone(archived: ArchivedRows, table: Table, prefix: str) -> Pair:
    """A single table, or partition, staged and compared.

    :param prefix: as for pair_up()
    """
    names = (table.schema, table.name, table.oid)
    (pair,) = pair_up(TableFamily(*names, (table,), (names,)), archived.manifest, prefix)
    stage(archived, [pair])
    compare(archived.session, pair)
    return pair


_KINDS = "CASE WHEN %s IS NULL THEN 'missing' WHEN %s IS NULL THEN 'newer' ELSE 'changed' END AS kind, 'update' AS how"


def _by_key(session: Session, pair: Pair) -> str:
    return (
        "SELECT l__.ctid AS live, s__.ctid AS staged, %s FROM %s l__ FULL JOIN %s s__ ON %s"
        " WHERE l__.ctid IS NULL OR s__.ctid IS NULL OR %s IS DISTINCT FROM %s"
    ) % (
        _KINDS % ("l__.ctid", "s__.ctid"),
        pair.live,
        pair.stage,
        pair.same_key(session, "l__", "s__"),
        pair.live_text("l__"),
        digests.row_expression(pair.columns, "s__"),
    )


def _as_multisets(pair: Pair) -> str:
    """A table without key: of equal rows, the surplus of one side."""
    numbered = (
        "SELECT place__, text__, row_number() OVER (PARTITION BY text__) AS number__"
        " FROM (SELECT r__.ctid AS place__, %s AS text__ FROM %s r__) t__"
    )
    return (
        "SELECT l__.place__ AS live, s__.place__ AS staged, %s FROM (%s) l__ FULL JOIN (%s) s__"
        " ON l__.text__ = s__.text__ AND l__.number__ = s__.number__"
        " WHERE l__.place__ IS NULL OR s__.place__ IS NULL"
    ) % (
        _KINDS % ("l__.place__", "s__.place__"),
        numbered % (pair.live_text("r__"), pair.live),
        numbered % (digests.row_expression(pair.columns), pair.stage),
    )


def _samples(session: Session, pair: Pair, kind: str) -> List[Dict[str, Any]]:
    source, place = (pair.live, "live") if kind == "newer" else (pair.stage, "staged")
    key = ["r__." + quote_identifier(column) for column in pair.table.key]
    rows = session.rows(
        "SELECT %s FROM %s d__ JOIN %s r__ ON r__.ctid = d__.%s WHERE d__.kind = '%s' ORDER BY %s LIMIT %d"
        % (
            ", ".join(column + "::text" for column in key),
            pair.difference,
            source,
            place,
            kind,
            ", ".join(key),
            SAMPLES,
        )
    )
    return [dict(zip(pair.table.key, row)) for row in rows]


def effects(session: Session, pair: Pair) -> List[Dict[str, Any]]:
    """Effects of foreign keys on rows of other tables if the live table were made equal; only those with rows."""
    found: List[Dict[str, Any]] = []
    for key in references.foreign_keys_to(session, pair.table.oid):
        for event, actions, rows in (
            ("delete", _ON_DELETE, _referring(session, pair, key, "d__.kind = 'newer'")),
            ("update", _ON_UPDATE, _referring(session, pair, key, _other_value(key))),
        ):
            if rows:
                action = key.on_delete if event == "delete" else key.on_update
                found.append(
                    {
                        "table": key.full_name,
                        "constraint": key.name,
                        "on": event,
                        "rows": rows,
                        "effect": actions.get(action, REFUSES),
                    }
                )
    return found


def _other_value(key: references.ForeignKey) -> str:
    return "d__.kind = 'changed' AND %s IS DISTINCT FROM %s" % (
        digests.row_expression(key.target_columns, "l__"),
        digests.row_expression(key.target_columns, "s__"),
    )


def _referring(session: Session, pair: Pair, key: references.ForeignKey, condition: str) -> int:
    """Number of rows that refer to live rows with a condition; of the table itself only those that stay unchanged."""
    itself = " AND NOT EXISTS (SELECT FROM %s x__ WHERE x__.live = c__.ctid)" % pair.difference
    return int(
        session.value(
            "SELECT count(*) FROM %s c__ WHERE EXISTS (SELECT FROM %s d__ JOIN %s l__ ON l__.ctid = d__.live"
            " LEFT JOIN %s s__ ON s__.ctid = d__.staged WHERE %s AND %s)%s"
            % (
                key.source,
                pair.difference,
                pair.live,
                pair.stage,
                condition,
                key.matches("l__", "c__"),
                itself if key.oid == pair.table.oid else "",
            )
        )
    )
