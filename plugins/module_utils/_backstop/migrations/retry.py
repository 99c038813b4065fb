# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trying again when a migration failed only because it waited too long for a lock.

Whether it left nothing is proved, not assumed: a script may hold a COMMIT of its own. The live database is compared
with the backup of the operation, definitions and rows. Only where nothing differs is the migration marked as rolled
back and tried again; in every other case it failed, and the answer is scenario 1.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.failpoints import reach
from ..prisma.cli import Prisma
from ..prisma.failures import PrismaError
from ..site import Site
from ..store.steps import BACKUP
from .deploy import apply_migrations, wind_up_predecessor
from .leftovers import clean_failed_migration, leftovers


def apply_patiently(
    site: Site,
    prisma: Prisma,
    *,
    lock_retries: int,
    expected: Sequence[str],
    lock_timeout_ms: int,
    **keywords: Any,
) -> Dict[str, Any]:
    """As apply_migrations(), tried again up to ``lock_retries`` times.

    :returns: facts of the attempt that succeeded, with ``lock_retries``, how many were needed
    """
    attempt = 0
    while True:
        try:
            done = apply_migrations(site, prisma, expected=expected, lock_timeout_ms=lock_timeout_ms, **keywords)
            return {**done, "lock_retries": attempt}
        except PrismaError as error:
            if attempt >= lock_retries or not _only_waited(error) or not _put_right(site, prisma):
                raise
        attempt += 1
        reach("migrate.again")


def _only_waited(error: PrismaError) -> bool:
    """A statement of a migration ran into the lock timeout; waiting for Prisma's own lock is another case."""
    return bool(error.started) and error.sqlstate == sqlstates.LOCK_NOT_AVAILABLE


def _put_right(site: Site, prisma: Prisma) -> bool:
    """Mark the failed migration as rolled back, if it is proved that it left nothing; False where it is not."""
    backup = site.operation.result(BACKUP).backup if site.operation else ""
    if not backup:
        return False
    place = site.store.find_backup(backup)
    try:
        with site.connect() as session:
            wind_up_predecessor(site, session)
            found = leftovers(site, session, place)
    except BackstopError:  # who holds the lock may keep us from reading, too
        return False
    if any(found.values()):  # also where one before it was applied: taken out and run again it might do its work twice
        return False
    clean_failed_migration(site, place, prisma)
    return True
