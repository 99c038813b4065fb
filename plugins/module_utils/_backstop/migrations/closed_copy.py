# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scratch copy that cannot reach other servers, for trials. Databases that are to go live are never closed so."""

from __future__ import annotations

import contextlib
from typing import Dict, Iterable, Iterator, List, Tuple

from ..base.errors import BackstopError, Refused
from ..base.sql_names import is_scratch
from ..postgres.ways_out import REACHING, close_servers, reopen_servers, unclosable
from ..prisma.outgoing import openings
from ..site import Site


class CannotBeClosed(Refused):
    """A copy on the live server can reach other servers or databases in ways that this role cannot close."""


@contextlib.contextmanager
def closed_copy(site: Site, scratch: str) -> Iterator[None]:
    """Close a scratch copy's ways out during a trial. Afterwards it is again as it was restored.

    :raises CannotBeClosed: names the ways that cannot be closed; nothing was tried
    """
    if not is_scratch(scratch):
        raise Refused("Only a scratch database is closed for a trial", found=scratch)
    with site.connect(scratch) as session:
        found = unclosable(session)
        if found:
            raise CannotBeClosed(
                "What is tried on the copy could act on other databases or servers",
                found="; ".join(found),
                hint="drop what is not needed, or take EXECUTE on the extension's functions from PUBLIC as their owner",
            )
        was = close_servers(session)
    try:
        yield
    except BaseException:
        with contextlib.suppress(BackstopError):
            _reopen(site, scratch, was)
        raise
    _reopen(site, scratch, was)


def _reopen(site: Site, scratch: str, was: Dict[str, List[str]]) -> None:
    if was:
        with site.connect(scratch) as session:
            reopen_servers(session, was)


def refuse_openings(named: Iterable[Tuple[str, str]]) -> None:
    """Refuse SQL that opens a way out, because closing the copy beforehand does not prevent that.

    :param named: name and text of each SQL
    """
    found = ["%s %s" % (name, opening) for name, sql in named for opening in openings(sql, REACHING)]
    if found:
        raise CannotBeClosed(
            "SQL that is to be tried on the copy gives access to other servers",
            found="; ".join(found),
            hint="do that part by hand, or in a migration of its own deployed with prisma",
        )
