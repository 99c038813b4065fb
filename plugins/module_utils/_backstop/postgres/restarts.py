# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server restart during an operation, which breaks all its sessions."""

from __future__ import annotations

import functools
import time
from typing import Any, Callable, Protocol, TypeVar, cast

from ..base.errors import BackstopError
from .connection import Session

#: How long a server may take to accept connections again.
RESTART_SECONDS = 60.0
_POLL_SECONDS = 0.2


class Administered(Protocol):
    """What can open a session in the maintenance database."""

    def administer(self) -> Session:
        """Open such a session; the caller closes it."""


Work = TypeVar("Work", bound=Callable[..., Any])


def tried_again(work: Work) -> Work:
    """Call the function again if its connection broke and the server accepts connections again.

    Only for functions that can be repeated after a kill, because they first ask the server whether they committed.
    """

    @functools.wraps(work)
    def call(site: Administered, *arguments: Any, **keywords: Any) -> Any:
        try:
            return work(site, *arguments, **keywords)
        except BackstopError as error:
            if not error.details.get("broken") or not _answers_again(site):
                raise
        return work(site, *arguments, **keywords)

    return cast(Work, call)


def transaction_to_ask_for(site: Administered, session: Session) -> str:
    """The id of a transaction that has written something; pg_xact_status() later returns its outcome.

    After a crash an id can be reused if its WAL was not flushed; the COMMIT of another session flushes it.
    """
    number = str(session.value("SELECT pg_current_xact_id()::text"))
    with site.administer() as other, other.transaction():
        other.execute("SET LOCAL synchronous_commit = local")
        other.execute("SELECT pg_logical_emit_message(true, 'backstop', '')")
    return number


def was_committed(session: Session, transaction: str) -> bool:
    """Whether a transaction with the id of transaction_to_ask_for() was committed, by the server."""
    return bool(session.value("SELECT pg_xact_status(%s::text::xid8) = 'committed'", (transaction,)))


def _answers_again(site: Administered) -> bool:
    deadline = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            site.administer().close()
            return True
        except BackstopError as error:
            if not error.details.get("broken") or time.monotonic() > deadline:
                return False
        time.sleep(_POLL_SECONDS)
