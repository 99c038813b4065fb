# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safety copy: the live database copied on its server right before a migration, so that going back needs no
restore. It is no backup, because it is on the same disk.

It equals the deploy's backup: the database is closed to connections, compared, and copied before it is opened again.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional

from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.sql_names import SAFETY_COPY_PREFIX, quote_identifier, safety_copy_name
from ..postgres import server
from ..postgres.connection import Session
from ..postgres.template_copy import copy_database
from ..site import Run, Site
from ..store.layout import BackupPlace
from ..store.operation import operations_of
from ..store.steps import SAFETY_COPY, SafetyCopyMade


@contextlib.contextmanager
def closed_to_others(site: Site, admin: Session, inside: Session) -> Iterator[None]:
    """Nobody can connect to the live database, and nobody but this session is in it.

    If the process is killed here, the next connection of any command opens it again; see Site.connect().

    :raises Refused: another session connected meanwhile, or a transaction is prepared
    """
    obstacles = server.obstacles_to_rename(admin, site.database)
    if obstacles:
        raise Refused(
            "The database cannot be copied",
            found=", ".join(obstacles),
            expected="no subscription, replication slot or prepared transaction in " + site.database,
            hint="drop them, or deploy without a safety copy",
        )
    server.allow_connections(admin, site.database, False)
    try:
        others = server.other_sessions(admin, site.database, besides=(inside.backend,))
        if others:
            raise Refused(
                "Other sessions are active in the database",
                found="; ".join(str(other) for other in others),
                expected="none that reconnects after it was ended",
                hint="stop those programs, then run this again",
            )
        reach("safety-copy.closed")
        yield
    finally:
        server.allow_connections(admin, site.database, True)


def make_safety_copy(run: Run, admin: Session, place: BackupPlace, method: str) -> None:
    """Copy the live database, which equals this backup and is closed. No session may be in it, not even ours."""
    name = safety_copy_name(run.operation.id, run.database)
    with run.operation.step(SAFETY_COPY) as facts:
        drop_safety_copy(admin, name)
        run.progress.phase("copying", database=name)
        try:
            facts["seconds"] = copy_database(admin, run.database, name, method)
        except BackstopError:
            drop_safety_copy(admin, name)
            raise
        reach("safety-copy.made")
        facts.update(copy=name, oid=server.database_oid(admin, name), method=method, backup=place.backup_id)


def safety_copy_of(site: Site, admin: Session, place: BackupPlace) -> Optional[SafetyCopyMade]:
    """The newest safety copy that equals a backup; None without one."""
    for operation in reversed(operations_of(site.store, site.database)):
        made = operation.result(SAFETY_COPY)
        if made.backup == place.backup_id and made.oid == server.database_oid(admin, made.copy):
            return made
    return None


def drop_safety_copy(admin: Session, name: str) -> None:
    if not name.startswith(SAFETY_COPY_PREFIX):
        raise AssertionError("only a safety copy is dropped here")
    admin.execute("DROP DATABASE IF EXISTS " + quote_identifier(name))
