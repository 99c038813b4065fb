# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures as text: durations, sizes, counts and times."""

from __future__ import annotations

from typing import Optional, Sequence

from ..base.progress import parse_timestamp

UNKNOWN = "not known"


def duration(seconds: Optional[float]) -> str:
    """``0.4 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 3 h``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return "%.1f s" % seconds
    whole = int(round(seconds))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return "%d %s" % (whole // size, unit) + (" %d %s" % (rest, smaller) if rest else "")
    return "%d s" % whole


def size(count: Optional[float]) -> str:
    """Bytes in decimal units: ``1.3 MB``."""
    if count is None:
        return UNKNOWN
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return "%.1f %s" % (count / factor, unit)
    return "%d B" % count


def number(count: Optional[int]) -> str:
    """With thousands separated: ``5,294``."""
    return UNKNOWN if count is None else "{:,}".format(count)


def counted(count: Optional[int], one: str, many: Optional[str] = None) -> str:
    """``1 row``, ``5,294 rows``, ``no row``."""
    if count is None:
        return "an unknown number of %s" % (many or one + "s")
    return "no %s" % one if count == 0 else "%s %s" % (number(count), one if count == 1 else many or one + "s")


def moment(text: Optional[str]) -> str:
    """A timestamp as people read it: ``30 Nov 2026, 17:53:24 UTC``."""
    if not text:
        return UNKNOWN
    parsed = parse_timestamp(text)
    return "%d %s UTC" % (parsed.day, parsed.strftime("%b %Y, %H:%M:%S"))


def joined(names: Sequence[str], most: int = 6) -> str:
    """``a, b and 3 more``."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else "%s and %d more" % (shown, len(names) - most)
