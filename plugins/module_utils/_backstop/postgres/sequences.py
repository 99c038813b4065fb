# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sequences of a database that takes over or was restored: none may return a value again."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Tuple

from ..base.sql_names import qualified
from . import catalog
from .catalog import CARRIED
from .connection import Session

_STATES = (
    "SELECT n.nspname, c.relname, pg_sequence_last_value(c.oid), s.seqincrement < 0, s.seqmin, s.seqmax"
    " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relpersistence <> 't' AND " + CARRIED
)


#: Last value of each used sequence, by schema and name.
Values = Dict[Tuple[str, str], int]


def sequence_values(session: Session) -> Values:
    return {
        (str(schema), str(name)): int(value)
        for schema, name, value, _down, _least, _most in session.rows(_STATES)
        if value is not None
    }


def advance_sequences(former: Values, successor: Session) -> List[str]:
    """Set each sequence of the successor to the further one of both values; never back.

    A sequence whose bounds do not allow that value is left unchanged.

    :param former: values in the database that was live
    :returns: the advanced sequences, one sentence each
    """
    advanced: List[str] = []
    for schema, name, value, down, least, most in successor.rows(_STATES):
        wanted = former.get((str(schema), str(name)))
        if wanted is None or not least <= wanted <= most:
            continue
        if value is None or (wanted < value if down else wanted > value):
            successor.execute("SELECT setval(%s::regclass, %s)", (qualified(schema, name), wanted))
            advanced.append("%s.%s from %s to %d" % (schema, name, "its start" if value is None else value, wanted))
    return advanced


def sequences_behind(session: Session, wanted: Mapping[str, Optional[int]]) -> List[str]:
    """The sequences that would return values again. They may be further than in the snapshot, because they are not
    transactional."""
    found = catalog.sequences(session)
    descending = catalog.descending_sequences(session)
    behind = []
    for name, value in wanted.items():
        now = found.get(name)
        if value is not None and (now is None or (now > value if name in descending else now < value)):
            behind.append("%s is at %s, not %s" % (name, now, value))
    return behind
