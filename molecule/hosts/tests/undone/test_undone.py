# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the undo of the revert of both hosts, and a second undo that finds nothing to do."""

from __future__ import annotations

from deployed_site import AFTER, FIRST, RECEIPTS, succeeds
from four_hosts import Hosts

testinfra_hosts = ["local://"]


def test_both_run_the_new_release_again() -> None:
    hosts = Hosts()
    assert hosts.both_run(AFTER)
    assert hosts.runner.applied() == [FIRST, RECEIPTS]
    assert [operation.outcome for operation in hosts.runner.operations()] == ["rolled_back"] * 3 + ["done"] * 3


def test_a_second_undo_finds_nothing_to_do() -> None:
    process = Hosts().first.process()
    assert succeeds("undo_rollback").changed == 0
    assert Hosts().first.process() == process
