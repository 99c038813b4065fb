# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup and its verification say: short lines, made from their facts."""

from __future__ import annotations

import os
from typing import List

from ..base.amounts import human_size
from ..base.short_lines import packed
from .drill import Verified
from .make import BackupSummary
from .options import BackupOptions


def backed_up(backup: BackupSummary, reused: bool) -> List[str]:
    """A backup that was made, or that was there already."""
    was = "was there already" if reused else "was made"
    return [
        "Backup %s %s, verified to level %s." % (backup.backup, was, backup.level),
        "It has %d rows of %d tables, %s, in %s"
        % (backup.rows, backup.tables, human_size(backup.size), os.path.dirname(backup.directory)),
    ]


def would_back_up(form: BackupOptions, source: str, size: int, kind: str, store: str) -> List[str]:
    """In check mode.

    :param source: the database's URL, without a password
    :param size: of the database in bytes
    """
    what = "table %s of " % ", ".join(form.tables) if form.tables else ""
    only = ", definitions only" if form.schema_only else ""
    return ["would back up %s%s (%.1f MB%s)" % (what, source, size / 1e6, only), "as %s into %s" % (kind, store)]


def restored(drill: Verified, where: str = "database") -> List[str]:
    """A drill, of now or before."""
    when = "Restored earlier:" if drill.verified_at else "Restored"
    lines = [
        "%s %s into a scratch %s in %s s." % (when, drill.backup, where, drill.recovery_seconds),
        "It equals its source: %s rows of %s tables, all definitions." % (drill.rows, drill.tables),
    ]
    return lines + packed("Not brought back by a restore:", drill.tolerated, "; ") if drill.tolerated else lines


def verified(found: Verified, where: str) -> List[str]:
    """A verification of any level."""
    if found.recovery_seconds is not None:
        return restored(found, where)
    return ["Backup %s is verified to level %s; it was not restored." % (found.backup, found.level)]


def would_verify(backup: str, level: str, where: str, recent: bool) -> List[str]:
    """In check mode.

    :param recent: it was verified to that level recently enough
    """
    if recent:
        return ["Backup %s was verified to level %s recently enough; nothing would be done." % (backup, level)]
    lines = ["would verify backup %s to level %s" % (backup, level)]
    if level == "restored":
        lines.append("would restore it into a scratch %s, compare it with what it was made from, and drop that" % where)
    return lines
