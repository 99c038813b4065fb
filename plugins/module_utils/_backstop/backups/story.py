# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup and its verification say: short lines, made from their facts."""

from __future__ import annotations

import os
from typing import Any, List, Mapping

from ..base.short_lines import packed


def backed_up(facts: Mapping[str, Any]) -> List[str]:
    """A backup that was made, or that was there already."""
    was = "was there already" if facts["reused"] else "was made"
    return [
        "Backup %s %s, verified to level %s." % (facts["backup"], was, facts["level"]),
        "It has %d rows of %d tables, %d bytes, in %s"
        % (facts["rows"], facts["tables"], facts["size"], os.path.dirname(facts["directory"])),
    ]


def would_back_up(facts: Mapping[str, Any], tables: List[str], schema_only: bool, kind: str, store: str) -> List[str]:
    """In check mode."""
    what = "table %s of " % ", ".join(tables) if tables else ""
    only = ", definitions only" if schema_only else ""
    return [
        "would back up %s%s (%.1f MB%s)" % (what, facts["source"], facts["database_bytes"] / 1e6, only),
        "as %s into %s" % (kind, store),
    ]


def restored(facts: Mapping[str, Any], where: str = "database") -> List[str]:
    """A drill, of now or before."""
    when = "Restored earlier:" if facts.get("reused") else "Restored"
    lines = [
        "%s %s into a scratch %s in %s s." % (when, facts["backup"], where, facts["recovery_seconds"]),
        "It equals its source: %d rows of %d tables, all definitions." % (facts["rows"], facts["tables"]),
    ]
    return (
        lines + packed("Not brought back by a restore:", facts["tolerated"], "; ") if facts.get("tolerated") else lines
    )


def verified(facts: Mapping[str, Any], where: str) -> List[str]:
    """A verification of any level."""
    if facts.get("recovery_seconds") is not None:
        return restored(facts, where)
    return ["Backup %s is verified to level %s; it was not restored." % (facts["backup"], facts["level"])]


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
