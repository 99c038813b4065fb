# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the revert of both hosts."""

from __future__ import annotations

from deployed_site import BEFORE, FIRST
from four_hosts import Hosts

testinfra_hosts = ["local://"]


def test_both_run_the_former_release_on_the_former_schema() -> None:
    hosts = Hosts()
    assert hosts.both_run(BEFORE)
    assert hosts.runner.applied() == [FIRST] and not hosts.runner.has_table("ReceiptData")
    assert hosts.runner.sql('SELECT count(*) FROM "TokenPurchase"') == "400"
    assert [name for name in hosts.runner.databases() if name.startswith("backstop_scratch_")] == []
