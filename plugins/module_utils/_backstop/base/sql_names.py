# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in SQL: quoting, parsing user input, and the names of databases that this collection creates."""

from __future__ import annotations

import difflib
import re
from typing import Dict, Iterable, List, Optional, Tuple

from .errors import Refused

#: PostgreSQL truncates identifiers to NAMEDATALEN - 1 bytes (63 by default).
MAX_NAME_BYTES = 63
SCRATCH_PREFIX = "backstop_scratch_"
RETIRED_PREFIX = "backstop_retired_"
SAFETY_COPY_PREFIX = "backstop_copy_"
#: No database of a user may have a name that starts with one of these.
RESERVED_PREFIXES = (SCRATCH_PREFIX, RETIRED_PREFIX, SAFETY_COPY_PREFIX)


def quote_identifier(name: str) -> str:
    """Quote one identifier; always with quotes, so that case and special characters are kept."""
    if "\0" in name:
        raise Refused("A name holds a NUL character", found=repr(name))
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote a string constant so that it means the same with either standard_conforming_strings."""
    if "\0" in text:
        raise Refused("A text holds a NUL character", found=repr(text))
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def qualified(schema: str, name: str) -> str:
    """Both parts of a schema-qualified name, quoted."""
    return quote_identifier(schema) + "." + quote_identifier(name)


_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".\s]+))\s*')


def parse_table_name(text: str) -> Tuple[Optional[str], str]:
    """Parse a table's name as a user types it: ``ReceiptData``, ``public.ReceiptData`` or ``"ReceiptData"``.

    Case is kept in every form, unlike in SQL: a name with capitals means the table with capitals.

    :returns: schema (None without one) and table
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
    """A table's name in the syntax of parse_table_name(): double-quoted where necessary."""
    parts = (part if re.fullmatch(r'[^".\s]+', part) else quote_identifier(part) for part in (schema, name))
    return ".".join(parts)


def near_names(wanted: str, known: Iterable[str]) -> List[str]:
    """The known names most similar to the wanted one, ignoring case."""
    folded: Dict[str, str] = {}
    for name in known:
        folded.setdefault(name.lower().replace("_", ""), name)
    close = difflib.get_close_matches(wanted.lower().replace("_", ""), list(folded), n=3, cutoff=0.5)
    return [folded[name] for name in close]


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def scratch_name(operation_id: str, purpose: str) -> str:
    """Name of a scratch database of an operation; only these may be dropped without confirmation."""
    return _cut(SCRATCH_PREFIX + _id_in_name(operation_id) + "_" + purpose, MAX_NAME_BYTES)


def retired_name(operation_id: str, live: str) -> str:
    """Name under which an operation keeps the former live database."""
    return _cut(RETIRED_PREFIX + _id_in_name(operation_id) + "_" + live, MAX_NAME_BYTES)


def safety_copy_name(operation_id: str, live: str) -> str:
    """Name of the copy of the live database that a deploy makes right before it migrates."""
    return _cut(SAFETY_COPY_PREFIX + _id_in_name(operation_id) + "_" + live, MAX_NAME_BYTES)


def is_scratch(name: str) -> bool:
    return name.startswith(SCRATCH_PREFIX)


def belongs_to(name: str, operation_id: str) -> bool:
    """True if a database's name shows that this operation created or retired it."""
    stem = _id_in_name(operation_id) + "_"
    return name.startswith((SCRATCH_PREFIX + stem, RETIRED_PREFIX + stem))


def _id_in_name(operation_id: str) -> str:
    return operation_id.lower().replace("-", "_")
