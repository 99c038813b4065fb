# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A database taken there and back: backup, drill, a change, the revert, its undo; compared by what pg_dump writes."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from typing import Any, List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo

from .databases import OWNER, Live

#: Other in every run of pg_dump.
_PER_RUN = re.compile(r"^\\(un)?restrict \w+$")


def pg_dump(live: Live, *more: str) -> "Counter[str]":
    """Each line that pg_dump writes of a database. Rows have no order, so lines have none here."""
    argv = [str(live.cluster.bin_dir / "pg_dump"), "--no-password", *more]
    # The name of the database may look like an option or like a connection string.
    environment = {**live.cluster.environment(live.name), "PGCLIENTENCODING": "SQL_ASCII"}
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    lines = done.stdout.decode("utf-8", "surrogateescape").split("\n")
    return Counter(line for line in lines if not _PER_RUN.match(line))


def execute(live: Live, statement: str) -> List[Any]:
    """The first column of a statement's result, with the database's own session settings overridden."""
    with live.session() as cursor:
        for setting in (
            "statement_timeout = 0",
            "lock_timeout = 0",
            "default_transaction_read_only = off",
            "session_replication_role = replica",
            "event_triggers = off",
        ):
            if not setting.startswith("event_triggers") or live.cluster.major >= 17:
                cursor.execute("SET " + setting)
        cursor.execute("SET ROLE " + OWNER)
        cursor.execute(statement)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def there_and_back(live: Live) -> None:
    """Nothing is lost, nothing is different afterwards, and nothing is left."""
    names = live.names()
    before = pg_dump(live)
    place = live.backup()
    assert verify(live.site, place, "restored").level == "restored"
    execute(live, "CREATE SCHEMA backstop_newer; CREATE TABLE backstop_newer.newer (id integer PRIMARY KEY)")
    changed = pg_dump(live)
    run = live.begun("rollback", {"scenario": "complete", "backup": place.backup_id})
    build_successor(run, place)
    result = revert(run, place, LossPolicy(0, objects=2))
    assert result.changed and result.lost_rows == 0
    require_same(before, pg_dump(live))
    run.operation.close("done")
    back = live.begun("undo", {"undoes": run.operation.id})
    assert undo(back, run.operation, LossPolicy(0)).changed
    back.operation.close("done")
    require_same(changed, pg_dump(live))
    execute(live, "DROP SCHEMA backstop_newer CASCADE")
    retired = [name for name in live.names() if name.startswith("backstop_retired_")]
    assert sorted(live.names()) == sorted([*names, *retired]) and len(retired) == 1


def require_same(one: "Counter[str]", other: "Counter[str]") -> None:
    lacking, besides = list((one - other).elements()), list((other - one).elements())
    assert not lacking and not besides, "lacking: %s\nbesides: %s" % (
        [line[:200] for line in lacking[:10]],
        [line[:200] for line in besides[:10]],
    )
