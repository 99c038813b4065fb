# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connecting to a database that accepts no connections: a retired one."""

from __future__ import annotations

import contextlib
from typing import Iterator

from ..base.errors import BackstopError, Refused
from ..postgres import server
from ..postgres.connection import Session
from ..site import Site


@contextlib.contextmanager
def connect_exclusively(site: Site, admin: Session, name: str) -> Iterator[Session]:
    """A session in a database; a database that accepts no connections accepts this one and no other.

    :raises Refused: another session connected meanwhile
    """
    closed = not admin.value("SELECT datallowconn FROM pg_database WHERE datname = %s", (name,))
    with contextlib.ExitStack() as stack:
        if closed:
            server.allow_connections(admin, name, True)
            # Only for a moment: no other session may connect.
            stack.callback(_close_again, admin, name)
        session = stack.enter_context(site.connect(name))
        if closed:
            server.allow_connections(admin, name, False)
            others = server.other_sessions(admin, name, besides=(session.backend,))
            if others:
                raise Refused(
                    "Other sessions are connected to database %s" % name,
                    found="; ".join(str(other) for other in others),
                    hint="end these sessions, then run this again; nothing was changed",
                )
        yield session


@contextlib.contextmanager
def opened(admin: Session, name: str) -> Iterator[None]:
    """Let a database accept connections while a program needs several; closed again afterwards.

    Other sessions could connect meanwhile, so its contents must be compared afterwards, in connect_exclusively().
    """
    server.allow_connections(admin, name, True)
    try:
        yield
    finally:
        _close_again(admin, name)


def _close_again(admin: Session, name: str) -> None:
    with contextlib.suppress(BackstopError):
        server.allow_connections(admin, name, False)
