# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collations for which the system provides another version than the one a database was built with.

Indexes may no longer be sorted correctly: rows are not found, duplicates get in. A database that is restored from a
dump is built with the current versions; a retired one that goes live again is not.
"""

from __future__ import annotations

from typing import List

from .connection import Session
from .server import major_version


def mismatches(session: Session) -> List[str]:
    """One sentence for the database, and one for each collation that a column or an index of it uses."""
    found: List[str] = []
    if major_version(session) >= 15:
        for name, version, now in session.rows(
            "SELECT datname, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database"
            " WHERE datname = current_database() AND datcollversion IS NOT NULL"
            " AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)"
        ):
            found.append("database %s was built with version %s, the system has %s" % (name, version, now or "none"))
    for schema, name, version, now in session.rows(
        "SELECT n.nspname, c.collname, c.collversion, pg_collation_actual_version(c.oid) FROM pg_collation c"
        " JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL"
        " AND c.collversion IS DISTINCT FROM pg_collation_actual_version(c.oid)"
        " AND c.oid IN (SELECT a.attcollation FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid"
        " WHERE r.oid >= 16384) ORDER BY 1, 2"
    ):
        found.append("collation %s.%s has version %s, the system has %s" % (schema, name, version, now or "none"))
    return found


#: What to do about them.
ADVICE = (
    "REINDEX what sorts by them (REINDEX DATABASE), then ALTER DATABASE ... REFRESH COLLATION VERSION and"
    " ALTER COLLATION ... REFRESH VERSION"
)
