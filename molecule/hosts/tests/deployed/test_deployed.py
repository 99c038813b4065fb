# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the deploy to both hosts."""

from __future__ import annotations

from deployed_site import AFTER, FIRST, RECEIPTS
from four_hosts import Hosts

testinfra_hosts = ["local://"]


def test_both_run_the_new_release_on_the_new_schema() -> None:
    hosts = Hosts()
    assert hosts.both_run(AFTER)
    assert hosts.runner.applied() == [FIRST, RECEIPTS]
    assert hosts.runner.operations()[-1].outcome == "done"


def test_the_store_is_on_the_runner_alone() -> None:
    hosts = Hosts()
    assert [site.host.check_output("ls -A /var/backups") for site in (hosts.first, hosts.second)] == ["", ""]
    assert [manifest["kind"] for manifest in hosts.runner.manifests()][-2:] == ["pre-migration", "post-migration"]
