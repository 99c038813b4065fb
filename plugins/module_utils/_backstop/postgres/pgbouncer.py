# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PgBouncer's console: finding the pools of a database, pausing and resuming them.

A paused pool stays paused when the console's connection ends, and a second PAUSE of it hangs. So its state is checked
first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Dict, Iterator, List, Mapping, Tuple
from urllib.parse import urlsplit

from ..base.errors import BackstopError, Refused
from ..base.remedies import Setting, remedy
from ..base.sql_names import near_names, quote_identifier
from .connection import Session, Settings, connect, database_errors, execute_within

#: What to do about clients that keep a session longer than the wait.
REFUSE, END = "refuse", "end"


@dataclasses.dataclass(frozen=True)
class Pooler:
    """One PgBouncer, and which of its pools connect to the database."""

    console: Settings
    #: names of pools; empty: all that connect to the database by its name
    pools: Tuple[str, ...] = ()
    #: how long clients may keep their current session
    wait_seconds: float = 10
    held: str = REFUSE

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "Pooler":
        fields = {key: value for key, value in given["console"].items() if value is not None}
        base = Settings(port=6432, database="pgbouncer")
        console = Settings.from_mapping(fields, base=base)
        if not console.database:
            console = console.with_database(base.database)
        if "port" not in fields and urlsplit(fields.get("url", "")).port is None:
            console = dataclasses.replace(console, port=base.port)
        return cls(console, tuple(given["pools"]), float(given["wait"]), given["held"])

    @property
    def address(self) -> str:
        return "%s:%d" % (self.console.host, self.console.port)


@dataclasses.dataclass(frozen=True)
class Pool:
    """A line of SHOW DATABASES."""

    name: str
    database: str
    mode: str
    paused: bool


class Console:
    """A session in the console."""

    def __init__(self, pooler: Pooler, session: Session) -> None:
        self._pooler = pooler
        self._session = session

    def pools_of(self, database: str) -> List[Pool]:
        """The named pools, or all that connect to the database.

        :raises Refused: a named pool does not exist, or connects to another database
        """
        known = self._pools()
        wanted = self._pooler.pools or [pool.name for pool in known.values() if pool.database == database]
        for name in wanted:
            if name not in known or known[name].database != database:
                raise Refused(
                    "PgBouncer at %s has no pool %s that points to database %s"
                    % (self._pooler.address, name, database),
                    found=", ".join("%s points to %s" % (pool.name, pool.database) for pool in known.values())
                    or "none",
                    hint=remedy(
                        "correct the pools in %s%s",
                        Setting.POOLERS,
                        "".join("; did you mean %s?" % near for near in near_names(name, list(known))[:1]),
                    ),
                )
        if not wanted:
            raise Refused(
                "PgBouncer at %s has no pool that points to database %s" % (self._pooler.address, database),
                found=", ".join("%s points to %s" % (pool.name, pool.database) for pool in known.values()) or "none",
                hint=remedy("name its pools in %s, or leave this PgBouncer out", Setting.POOLERS),
            )
        return [known[name] for name in wanted]

    def _pools(self) -> Dict[str, Pool]:
        default = self.setting("pool_mode")
        return {
            str(row["name"]): Pool(
                str(row["name"]), str(row["database"]), str(row["pool_mode"] or default), bool(int(row["paused"]))
            )
            for row in self._show("DATABASES")
            if row["name"] != "pgbouncer"
        }

    def setting(self, name: str) -> str:
        return next((str(row["value"]) for row in self._show("CONFIG") if row["key"] == name), "")

    def _show(self, what: str) -> List[Dict[str, Any]]:
        # The columns and their order differ between versions.
        with database_errors(), self._session.cursor() as cursor:
            cursor.execute("SHOW " + what)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def pause(self, name: str) -> bool:
        """Pause a pool, so that its clients wait; True when it has no session with the server left.

        False at the timeout: the pool is paused nevertheless, but some clients still keep their session.
        """
        statement = "PAUSE " + quote_identifier(name)
        return execute_within(self._pooler.console, statement, self._pooler.wait_seconds)

    def resume(self, name: str) -> bool:
        """Resume a pool, with new server connections; False when it was not paused."""
        pool = self._pools().get(name)
        if pool is None or not pool.paused:
            return False
        for verb in ("RECONNECT", "RESUME"):
            self._session.execute("%s %s" % (verb, quote_identifier(name)))
        return True

    def holders(self, name: str) -> List[str]:
        """The clients of a pool that have a session with the server."""
        return [
            "%s%s from %s:%s"
            % (
                row["user"],
                " (%s)" % row["application_name"] if row.get("application_name") else "",
                row["addr"],
                row["port"],
            )
            for row in self._show("CLIENTS")
            if row["database"] == name and row["link"]
        ]


@contextlib.contextmanager
def console(pooler: Pooler) -> Iterator[Console]:
    """A session in the console of a PgBouncer.

    :raises Refused: it cannot be reached, or this user is not one of its ``admin_users``
    """
    try:
        session = connect(pooler.console, pinned=False)
    except BackstopError as error:
        raise Refused(
            "The console of PgBouncer at %s cannot be reached" % pooler.address,
            found="%s: %s" % (error.message, error.found) if error.found else error.message,
            expected="a user of its admin_users",
            hint=remedy("correct %s", Setting.POOLERS),
        ) from None
    with session:
        yield Console(pooler, session)
