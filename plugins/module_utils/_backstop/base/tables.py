# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table and its contents, as queried from a server and stored in a manifest."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .sql_names import qualified


@dataclasses.dataclass(frozen=True)
class Digest:
    """The contents of a table. The hash is a decimal number of up to about 30 digits, as text."""

    rows: int
    hash: str

    @classmethod
    def from_json(cls, value: Any) -> "Digest":
        return cls(int(value["rows"]), str(value["hash"]))

    def to_json(self) -> Any:
        return {"rows": self.rows, "hash": self.hash}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that stores rows itself."""

    oid: int
    schema: str
    name: str
    filenode: int
    unlogged: bool
    #: columns in order, without dropped ones
    columns: Tuple[str, ...]
    types: Tuple[str, ...]
    generated: Tuple[str, ...]
    #: columns of the primary key, else of a unique index over NOT NULL columns, else empty
    key: Tuple[str, ...]
    size: int
    #: for an extension's table: pg_dump's filter for its rows, such as "WHERE id > 100", or empty; else None
    extension_filter: Optional[str] = None
    #: attnum of each column, which a rename does not change; empty in manifests without it
    numbers: Tuple[int, ...] = ()

    @property
    def full_name(self) -> str:
        return self.schema + "." + self.name

    @property
    def source(self) -> str:
        """The FROM item for the rows that a dump carries: only the table's own rows, with their ctid."""
        own = "ONLY " + qualified(self.schema, self.name)
        return "(SELECT ctid, xmin, * FROM %s %s)" % (own, self.extension_filter) if self.extension_filter else own

    @property
    def writable_columns(self) -> List[str]:
        return [column for column in self.columns if column not in self.generated]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Table":
        """A table as a manifest stores it."""
        columns = value["columns"]
        return cls(
            int(value["oid"]),
            value["schema"],
            value["name"],
            int(value["filenode"]),
            bool(value["unlogged"]),
            tuple(column["name"] for column in columns),
            tuple(column["type"] for column in columns),
            tuple(value["generated"]),
            tuple(value["key"]),
            int(value["size"]),
            value.get("extension_filter"),
            tuple(column["number"] for column in columns if "number" in column),
        )

    def to_json(self) -> Dict[str, Any]:
        return {
            "schema": self.schema,
            "name": self.name,
            "oid": self.oid,
            "filenode": self.filenode,
            "unlogged": self.unlogged,
            "columns": [
                {"name": name, "type": kind, "number": number}
                for name, kind, number in zip(self.columns, self.types, self.numbers)
            ],
            "generated": list(self.generated),
            "key": list(self.key),
            "size": self.size,
            "extension_filter": self.extension_filter,
        }
