# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Short lines for users, about a list that may be long."""

from __future__ import annotations

from typing import Iterable, List

#: A line that a terminal of 80 columns shows without breaking it, with the indentation of the callback.
LONGEST = 76


def packed(head: str, items: Iterable[str], separator: str = ", ", indent: str = "  ") -> List[str]:
    """All items behind a heading, on as many lines as they need; further lines are indented."""
    lines = [head]
    for number, item in enumerate(items):
        glue = (" " if number == 0 else separator) if lines[-1].strip() else ""
        if len(lines[-1] + glue + item + separator.rstrip()) > LONGEST and lines[-1].strip():
            lines[-1] += glue.rstrip()
            lines.append(indent + item)
        else:
            lines[-1] += glue + item
    return lines
