# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying a database on its server, file by file, while no session is in it."""

from __future__ import annotations

import dataclasses
import time

from ..base.databases import DatabaseProperties
from ..base.errors import BackstopError
from ..base.sql_names import quote_identifier
from . import server
from .connection import Session
from .database_properties import copy_properties, read_properties
from .replication import require_confirming

#: The copy shares the blocks of the files until one of them is written to (file_copy_method, PostgreSQL 18; file
#: systems with reflinks); or every file is copied.
CLONE, FILES = "clone", "template"
#: The first version that can clone.
CLONES_FROM = 18


def copy_database(admin: Session, source: str, name: str, method: str) -> float:
    """Copy a database under a new name, with its owner, settings, privileges and comment. It accepts no connections.

    The server refuses after 5 seconds while a session is in the source, and lets none in while it copies. It runs two
    checkpoints, which flush what the whole server has not written yet.

    :returns: seconds
    """
    require_confirming(admin)
    properties = read_properties(admin, source)
    statement = "CREATE DATABASE %s TEMPLATE %s OWNER %s ALLOW_CONNECTIONS false CONNECTION LIMIT %d" % (
        quote_identifier(name),
        quote_identifier(source),
        quote_identifier(properties.owner),
        properties.connection_limit,
    )
    major = server.major_version(admin)
    if major >= CLONES_FROM:
        admin.execute("SET file_copy_method = %s", ("clone" if method == CLONE else "copy",))
    # Before version 15 files were always copied.
    begun = time.monotonic()
    admin.execute(statement + (" STRATEGY FILE_COPY" if major >= 15 else ""))
    copy_properties(admin, properties, name)
    seconds = time.monotonic() - begun
    _require_same(properties, read_properties(admin, name))
    return round(seconds, 3)


def _require_same(source: DatabaseProperties, copy: DatabaseProperties) -> None:
    wanted, found = dataclasses.asdict(source), dataclasses.asdict(copy)
    different = [key for key in wanted if key != "allow_connections" and wanted[key] != found[key]]
    if different:
        raise BackstopError(
            "The copy of the database has other properties than its source",
            found=", ".join("%s: %s" % (key, found[key]) for key in different),
            expected=", ".join("%s: %s" % (key, wanted[key]) for key in different),
        )
