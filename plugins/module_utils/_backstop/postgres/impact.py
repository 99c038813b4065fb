# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What deleting from a table does to others, read from the live catalog: the runbook's impact table."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ..postgres import catalog
from .connection import Session

_REFERENCED = """
WITH RECURSIVE upwards(oid) AS (
  SELECT unnest(%s::bigint[]::oid[])
  UNION
  SELECT k.confrelid FROM pg_constraint k JOIN upwards u ON k.conrelid = u.oid WHERE k.contype = 'f'
)
SELECT oid::bigint FROM upwards
"""
UNTOUCHED = "untouched"


def with_referenced(session: Session, tables: Sequence[catalog.Table]) -> List[catalog.Table]:
    """These tables and all that they refer to, however far away."""
    wanted = {int(oid) for (oid,) in session.rows(_REFERENCED, ([table.oid for table in tables],))}
    return [table for table in catalog.tables(session) if table.oid in wanted]


def impact_of(session: Session, tables: Sequence[catalog.Table]) -> List[Dict[str, Any]]:
    """For each table what DELETE of its rows and TRUNCATE ... CASCADE do to every table that is listed or reached."""
    found: List[Dict[str, Any]] = []
    for table in tables:
        effects: Dict[str, str] = {}
        for reached in catalog.reached_by_delete(session, table):
            known = effects.get(reached["table"])
            effects[reached["table"]] = known + ", " + reached["effect"] if known else reached["effect"]
        own = effects.get(table.full_name)
        effects[table.full_name] = "rows deleted" + (", " + own if own else "")
        found.append({"action": "DELETE", "table": table.full_name, "effects": effects})
        emptied = dict.fromkeys([table.full_name, *catalog.reached_by_truncate(session, table)], "emptied")
        found.append({"action": "TRUNCATE CASCADE", "table": table.full_name, "effects": emptied})
    columns = sorted({name for row in found for name in row["effects"]})
    for row in found:
        row["effects"] = {name: row["effects"].get(name, UNTOUCHED) for name in columns}
    return found


def as_text(impact: Sequence[Dict[str, Any]], default_schema: str = "public") -> List[str]:
    """Lines of a table for people; names of the default schema without it."""
    if not impact:
        return []

    def short(name: str) -> str:
        return name[len(default_schema) + 1 :] if name.startswith(default_schema + ".") else name

    columns = list(impact[0]["effects"])
    lines = [["Action", *map(short, columns)]]
    lines += [
        ["%s %s" % (row["action"], short(row["table"])), *(row["effects"][name] for name in columns)] for row in impact
    ]
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return [" | ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
