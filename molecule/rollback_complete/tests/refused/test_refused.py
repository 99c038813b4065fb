# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Without consent to the loss, which is counted and named, nothing is reverted."""

from __future__ import annotations

from deployed_site import AFTER, Site, play

testinfra_hosts = ["local://"]


def test_the_refusal_counts_what_would_be_lost() -> None:
    site = Site("backstop-rollback-complete")
    run = play("rollback_complete")
    assert run.status != 0
    run.must_say("1 rows would be lost", "public.User: 1 inserted", "rollback_accept_lost_rows=1")
    assert site.runs(AFTER) and site.has_table("ReceiptData")
    assert site.databases() == ["electricity_tokens", "postgres"]
    assert [operation.outcome for operation in site.operations()] == ["done", "failed"]
