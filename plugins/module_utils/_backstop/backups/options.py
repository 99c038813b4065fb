# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup contains, and in which format."""

from __future__ import annotations

import dataclasses
from typing import Optional, Sequence

from ..base.errors import Refused
from ..store import manifest as manifests

#: The archive by its format.
ARCHIVES = {"custom": "archive.dump", "directory": "archive"}
#: The same backup as plain SQL.
PLAIN = "plain.sql"
#: SQL that creates the release's Prisma schema in an empty database.
PRISMA_SCHEMA = "prisma-schema.sql"


@dataclasses.dataclass(frozen=True)
class BackupOptions:
    """What a backup contains, and in which format."""

    #: a key of ARCHIVES
    format: str = "custom"
    #: tables that are dumped in parallel, only with the format ``directory``
    jobs: int = 1
    #: definitions without rows
    schema_only: bool = False
    #: also keep the backup as plain SQL
    plain: bool = False
    #: the only tables, as a user types their names
    tables: Optional[Sequence[str]] = None

    @classmethod
    def of(cls, manifest: manifests.Manifest) -> "BackupOptions":
        """The options with which a backup of a whole database was made."""
        found = manifest.archive
        return cls(format=found.format, jobs=found.jobs, plain=bool(found.plain))

    @property
    def scope(self) -> str:
        if self.schema_only:
            return manifests.SCHEMA
        return manifests.WHOLE if self.tables is None else manifests.TABLES

    def require_possible(self, encrypted: bool = False) -> None:
        """:param encrypted: it is encrypted while it is written"""
        if encrypted and (self.format != "custom" or self.plain):
            raise Refused(
                "An encrypted backup is one file",
                found="plain SQL beside it" if self.plain else "format " + self.format,
                expected="format custom, without plain SQL",
                hint="leave out encryption, or plain and jobs",
            )
        if self.schema_only and self.tables is not None:
            raise Refused("A backup is of the schema or of single tables, not of both")
        if self.format not in ARCHIVES:
            raise Refused("Unknown archive format", found=self.format, expected=", ".join(ARCHIVES))
        if self.jobs < 1 or (self.jobs > 1 and self.format != "directory"):
            raise Refused(
                "An archive of one file is written by one job",
                found="%d jobs, format %s" % (self.jobs, self.format),
                expected="format directory for more than one job",
            )
