# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retrying a migration that failed only because it waited too long for a lock.

That it left nothing is proved, not assumed, because a script may contain a COMMIT. The live database's definitions and
rows are compared with the operation's backup. Only if nothing differs is the migration marked as rolled back and
retried; in every other case it has failed, and scenario 1 applies.
"""

from __future__ import annotations

from typing import Sequence

from ..base import sqlstates
from ..base.errors import BackstopError
from ..base.failpoints import reach
from ..loss.acceptance import LossPolicy
from ..prisma.cli import Prisma
from ..prisma.failures import PrismaError
from ..site import Site
from ..store.steps import BACKUP, BEFORE_MIGRATING, Migrated
from .deploy import Limits, apply_migrations, wind_up_predecessor
from .leftovers import clean_failed_migration, leftovers


def apply_patiently(
    site: Site, prisma: Prisma, limits: Limits, required_steps: Sequence[str] = BEFORE_MIGRATING
) -> Migrated:
    """Like apply_migrations(), retried up to ``lock_retries`` times."""
    attempt = 0
    while True:
        try:
            return apply_migrations(site, prisma, limits, required_steps, attempt)
        except PrismaError as error:
            if attempt >= limits.lock_retries or not _only_waited(error) or not _put_right(site, prisma):
                raise
        attempt += 1
        reach("migrate.again")


def _only_waited(error: PrismaError) -> bool:
    """Whether a statement of a migration hit the lock timeout; waiting for Prisma's own lock is another case."""
    return bool(error.failure.started) and error.sqlstate == sqlstates.LOCK_NOT_AVAILABLE


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
    except BackstopError:  # the holder of the lock may block reading, too
        return False
    if not found.nothing:  # also where an earlier one was applied: run again, it might repeat its work
        return False
    clean_failed_migration(site, place, prisma, LossPolicy())
    return True
