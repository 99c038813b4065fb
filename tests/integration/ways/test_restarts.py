# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL restarts during an operation: the operation has the same result as without the restart."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator, Optional

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import retired_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import restarts
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    handover as swap,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    in_place,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import (
    swap as revert,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import table as table_restore

ROW = """
INSERT INTO "TokenPurchase" ("id", "totalTokens", "purchaseDate", "createdBy") VALUES ('late', 1, now(), 'u1')
"""


class Restarts:
    """Restarts the server at failpoints of the library; it starts again a moment after it has stopped."""

    def __init__(self, cluster: Any, patch: pytest.MonkeyPatch) -> None:
        self.cluster, self.patch = cluster, patch
        self.left: Dict[str, int] = {}
        self.starting: Optional[threading.Thread] = None

    def at(self, module: Any, place: str, times: int = 1) -> None:
        self.left[place] = times
        self.patch.setattr(module, "reach", self.reach)

    def reach(self, place: str) -> None:
        if self.left.get(place):
            self.left[place] -= 1
            self.cluster.stop("fast")  # a crash would empty the unlogged tables of other tests
            self.starting = threading.Thread(target=self.cluster.start)
            self.starting.start()

    def over(self) -> None:
        assert not any(self.left.values()), "never came to %s" % self.left
        if self.starting:
            self.starting.join()


@pytest.fixture
def restarting(plain: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Restarts]:
    found = Restarts(plain.cluster, monkeypatch)
    yield found
    if found.starting:
        found.starting.join()
    plain.cluster.start()


def equals(live: Any, place: Any) -> bool:
    with live.site.connect() as session:
        return not compare_tables(session, load(place)).tables


@pytest.mark.fault(
    "deploy", "server restarted during the swap", by="the transaction's outcome is asked from the server"
)
@pytest.mark.parametrize("place", ["swap.renaming", "swap.before-commit", "swap.committed"])
def test_during_a_swap(plain: Any, restarting: Restarts, place: str) -> None:
    backup = plain.backup()
    plain.execute(ROW)
    run = plain.begun("rollback", {"backup": backup.backup_id})
    revert.build_successor(run, backup)
    restarting.at(swap, place)
    result = revert.revert(run, backup, LossPolicy(1))
    restarting.over()
    assert result.lost_rows == 1 and result.changed == (place != "swap.committed")
    assert equals(plain, backup)
    assert plain.names() == [retired_name(run.operation.id, plain.name), plain.name]
    assert run.operation.done(revert.SWAP)


@pytest.mark.fault(
    "deploy", "server restarted twice during the swap", by="the transaction's outcome is asked from the server"
)
def test_twice(plain: Any, restarting: Restarts) -> None:
    """The second restart is reported; nothing is done, and settle() finds that out once the server runs again."""
    backup = plain.backup()
    run = plain.begun("rollback", {"backup": backup.backup_id})
    revert.build_successor(run, backup)
    restarting.at(swap, "swap.counted", times=2)
    with pytest.raises(BackstopError, match="was lost|refused a statement") as caught:
        revert.revert(run, backup, LossPolicy(0))
    assert caught.value.details["broken"]
    assert revert.settle(run) is None
    restarting.over()
    assert revert.revert(run, backup, LossPolicy(0)).changed and equals(plain, backup)


@pytest.mark.fault("deploy", "server that stays down during the swap", by="a stated end; the next run settles it")
def test_a_server_that_stays_away(plain: Any, restarting: Restarts, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = plain.backup()
    run = plain.begun("rollback", {"backup": backup.backup_id})
    revert.build_successor(run, backup)
    monkeypatch.setattr(restarts, "RESTART_SECONDS", 0.3)
    monkeypatch.setattr(swap, "reach", lambda place: plain.cluster.stop("fast"))
    with pytest.raises(BackstopError) as caught:
        revert.revert(run, backup, LossPolicy(0))
    assert caught.value.details["broken"]
    plain.cluster.start()
    assert plain.names() == ["backstop_scratch_%s_new" % run.operation.id.lower().replace("-", "_"), plain.name]


@pytest.mark.fault(
    "deploy", "server restarted during a restore in place", by="the transaction's outcome is asked from the server"
)
@pytest.mark.parametrize("place", ["in-place.before-commit", "in-place.committed"])
def test_in_place(plain: Any, restarting: Restarts, place: str) -> None:
    backup = plain.backup()
    plain.execute(ROW)
    run = plain.begun("rollback", {"backup": backup.backup_id})
    restarting.at(in_place, place)
    result = in_place.revert_in_place(run, backup, LossPolicy(1))
    restarting.over()
    assert result.lost_rows == 1 and result.changed == (place != "in-place.committed")
    assert equals(plain, backup)


@pytest.mark.fault(
    "deploy", "server restarted while a table is restored", by="the transaction's outcome is asked from the server"
)
def test_one_table(plain: Any, restarting: Restarts) -> None:
    backup = plain.backup()
    plain.execute("""UPDATE "UserContribution" SET "id" = "id" || 'x'""")
    run = plain.begun("rollback", {"backup": backup.backup_id})
    restarting.at(table_restore, "table.before-commit")
    wanted = table_restore.TableRestoreRequest("UserContribution", policy=LossPolicy(10**6))
    result = table_restore.restore_table(run, wanted, backup.backup_id)
    restarting.over()
    assert result.changed and result.total
    assert equals(plain, backup)
