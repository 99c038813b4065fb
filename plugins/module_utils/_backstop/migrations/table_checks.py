# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checking tables against expectations: all checks are evaluated, each failure is a sentence."""

from __future__ import annotations

import contextlib
import decimal
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..base.errors import BackstopError, Refused
from ..postgres import digests, measures
from ..postgres.catalog import TableFamily, find_family
from ..postgres.connection import Session
from ..store.manifest import Manifest

#: The measurements of a table, and its failures.
Result = Tuple[Dict[str, Any], List[str]]


def check_tables(
    session: Session,
    wanted: Sequence[Mapping[str, Any]],
    default_schema: str,
    manifest: Optional[Manifest] = None,
    besides: Sequence[str] = (),
) -> List[Dict[str, Any]]:
    """Check every table; see check_table().

    :param besides: other failures, reported together
    :returns: the measurements of each table
    :raises BackstopError: with a sentence for each failure
    """
    results = [check_table(session, one, default_schema, manifest) for one in wanted]
    measured = [found for found, _wrong in results]
    wrong = [sentence for _found, sentences in results for sentence in sentences] + list(besides)
    if wrong:
        raise BackstopError(
            "The database is not as expected",
            found="; ".join(wrong[:20]),
            details={"wrong": wrong, "tables": measured},
        )
    return measured


def check_table(
    session: Session, wanted: Mapping[str, Any], default_schema: str, manifest: Optional[Manifest] = None
) -> Result:
    """Check one table.

    :param wanted: the name and the expectations; an expectation of None is only measured
    :param manifest: of a backup, whose digest the table must have
    """
    name = wanted["name"]
    try:
        family = find_family(session, name, default_schema)
    except Refused as error:
        return {"table": name, "exists": False}, [str(error)] if wanted.get("exists", True) else []
    measured: Dict[str, Any] = {"table": family.full_name, "exists": True}
    if not wanted.get("exists", True):
        return measured, ["table %s exists" % name]
    wrong = _check_shape(family, wanted)
    for check in (_check_rows, _check_extremes, _check_sums):
        wrong += check(session, family, wanted, measured)
    if manifest is not None:
        wrong += _check_digests(session, family, manifest, measured)
    return measured, wrong


def _check_shape(family: TableFamily, wanted: Mapping[str, Any]) -> List[str]:
    wrong = []
    known = measures.columns_of(family)
    missing = [column for column in wanted.get("columns") or [] if column not in known]
    if missing:
        wrong.append("table %s lacks the columns %s; it has %s" % (family.name, ", ".join(missing), ", ".join(known)))
    key = wanted.get("key")
    if key is not None:
        found = sorted({leaf.key for leaf in family.leaves})
        if found != [tuple(key)]:
            shown = " or ".join(", ".join(one) or "none" for one in found) or "none"
            wrong.append("table %s has the key %s, not %s" % (family.name, shown, ", ".join(key) or "none"))
    return wrong


def _check_rows(
    session: Session, family: TableFamily, wanted: Mapping[str, Any], measured: Dict[str, Any]
) -> List[str]:
    rows = measured["rows"] = measures.count_rows(session, family)
    exact, least, most = (wanted.get(name) for name in ("rows", "min_rows", "max_rows"))
    if exact is not None and rows != exact:
        return ["table %s has %d rows, not %d" % (family.name, rows, exact)]
    if least is not None and rows < least:
        return ["table %s has %d rows, fewer than %d" % (family.name, rows, least)]
    if most is not None and rows > most:
        return ["table %s has %d rows, more than %d" % (family.name, rows, most)]
    return []


def _check_extremes(
    session: Session, family: TableFamily, wanted: Mapping[str, Any], measured: Dict[str, Any]
) -> List[str]:
    wrong: List[str] = []
    for word, which in (("earliest", "min"), ("latest", "max")):
        for column, expected in sorted((wanted.get(word) or {}).items()):
            with _noting_errors(wrong):
                found = measures.extreme(session, family, column, which)
                measured.setdefault(word, {})[column] = found
                if expected is not None and not _is_same(session, family, column, found, str(expected)):
                    wrong.append("%s %s of table %s is %s, not %s" % (word, column, family.name, found, expected))
    return wrong


def _is_same(session: Session, family: TableFamily, column: str, found: Optional[str], expected: str) -> bool:
    return found is not None and measures.is_same(session, measures.column_type(family, column), found, expected)


def _check_sums(
    session: Session, family: TableFamily, wanted: Mapping[str, Any], measured: Dict[str, Any]
) -> List[str]:
    wrong: List[str] = []
    for column, expected in sorted((wanted.get("sums") or {}).items()):
        with _noting_errors(wrong):
            found = measures.sum_of(session, family, column)
            measured.setdefault("sums", {})[column] = found.to_json()
            exact = not found.not_a_number and not found.infinite and _equal(found.sum, expected)
            if expected is not None and not exact:
                apart = [(found.not_a_number, "NaN"), (found.infinite, "infinite")]
                besides = "".join(" and %d %s" % pair for pair in apart if pair[0])
                wrong.append(
                    "the sum of %s in table %s is %s%s, not %s" % (column, family.name, found.sum, besides, expected)
                )
    return wrong


def _equal(found: str, expected: Any) -> bool:
    try:
        return decimal.Decimal(found) == decimal.Decimal(str(expected))
    except decimal.InvalidOperation:
        return False


@contextlib.contextmanager
def _noting_errors(wrong: List[str]) -> Iterator[None]:
    """A check that PostgreSQL refuses (a type without an order, a text invalid for the type) fails."""
    try:
        yield
    except BackstopError as error:
        wrong.append(str(error))


def _check_digests(session: Session, family: TableFamily, manifest: Manifest, measured: Dict[str, Any]) -> List[str]:
    wrong = []
    for leaf in family.leaves:
        entry = manifest.table(leaf.schema, leaf.name)
        if entry is None:
            wrong.append("table %s is not in backup %s" % (leaf.full_name, manifest.id))
            continue
        if leaf.columns != entry.table.columns:
            wrong.append("table %s has other columns than in backup %s" % (leaf.full_name, manifest.id))
            continue
        found = digests.table_digest(session, leaf.source, leaf.columns)
        if found != entry.digest:
            wrong.append(
                "table %s holds other rows than in backup %s: %d rows, there %d"
                % (leaf.full_name, manifest.id, found.rows, entry.digest.rows)
            )
    measured["same_as_backup"] = not wrong
    return wrong
