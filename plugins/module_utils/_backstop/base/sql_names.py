# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in SQL: quoting, parsing what a person typed, and the names of databases that this collection makes."""

from __future__ import annotations

import difflib
import re
from typing import Dict, Iterable, List, Optional, Tuple

from .errors import Refused

#: PostgreSQL cuts identifiers at NAMEDATALEN - 1 bytes (63 in every released build).
MAX_NAME_BYTES = 63
SCRATCH_PREFIX = "backstop_scratch_"
RETIRED_PREFIX = "backstop_retired_"


def quote_identifier(name: str) -> str:
    """Quote one identifier; always with quotes, so case and odd characters survive."""
    if "\0" in name:
        raise Refused("A name holds a NUL character", found=repr(name))
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote a string constant so that it means the same under every standard_conforming_strings."""
    if "\0" in text:
        raise Refused("A text holds a NUL character", found=repr(text))
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def qualified(schema: str, name: str) -> str:
    """Both parts of a schema-qualified name, quoted."""
    return quote_identifier(schema) + "." + quote_identifier(name)


_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".\s]+))\s*')


def parse_table_name(text: str) -> Tuple[Optional[str], str]:
    """Read a table's name as a person types it: ``ReceiptData``, ``public.ReceiptData`` or ``"ReceiptData"``.

    Case is kept in every form, unlike in SQL: a name that is typed with capitals means the table with capitals.

    :returns: schema (None when not given) and table
    """
    parts: List[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if not match:
            break
        parts.append(match.group(1).replace('""', '"') if match.group(1) else match.group(2))
        position = match.end()
        if text[position : position + 1] != ".":
            break
        position += 1
    if position != len(text) or not 1 <= len(parts) <= 2 or text.endswith("."):
        raise Refused(
            "This is not the name of a table",
            found=repr(text),
            expected="table, schema.table or either part in double quotes",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def typed_name(schema: str, name: str) -> str:
    """A table's name as parse_table_name() reads it: in double quotes where it has to be."""
    parts = (part if re.fullmatch(r'[^".\s]+', part) else quote_identifier(part) for part in (schema, name))
    return ".".join(parts)


def near_names(wanted: str, known: Iterable[str], most: int = 3) -> List[str]:
    """The known names that look most like the wanted one, whatever their case."""
    folded: Dict[str, str] = {}
    for name in known:
        folded.setdefault(name.lower().replace("_", ""), name)
    close = difflib.get_close_matches(wanted.lower().replace("_", ""), list(folded), n=most, cutoff=0.5)
    return [folded[name] for name in close]


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def scratch_name(operation_id: str, purpose: str) -> str:
    """Name of a scratch database of an operation; only such may be dropped without being asked."""
    return _cut(SCRATCH_PREFIX + _id_in_name(operation_id) + "_" + purpose, MAX_NAME_BYTES)


def retired_name(operation_id: str, live: str) -> str:
    """Name under which an operation keeps the former live database."""
    return _cut(RETIRED_PREFIX + _id_in_name(operation_id) + "_" + live, MAX_NAME_BYTES)


def is_scratch(name: str) -> bool:
    return name.startswith(SCRATCH_PREFIX)


def belongs_to(name: str, operation_id: str) -> bool:
    """True if a database's name says that this operation made or retired it."""
    stem = _id_in_name(operation_id) + "_"
    return name.startswith((SCRATCH_PREFIX + stem, RETIRED_PREFIX + stem))


def _id_in_name(operation_id: str) -> str:
    return operation_id.lower().replace("-", "_")
