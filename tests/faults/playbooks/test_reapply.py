# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A purchase that a customer made after the deploy survives a complete revert and its undo; and both, in place."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, Dict, Optional

from demo import application
from support.broken_releases import FIRST, MIGRATION
from support.demo_site import DemoSite


def ask(site: DemoSite, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> Any:
    request = urllib.request.Request(
        "http://127.0.0.1:%d%s" % (site.port, path),
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def buy(site: DemoSite) -> str:
    user = ask(site, "GET", "/api/users?limit=1")["users"][0]["id"]
    body = {"userId": user, "totalTokens": 12.5, "totalPayment": 31, "purchaseDate": "2025-11-08T02:30:00Z"}
    return str(ask(site, "POST", "/api/purchases", body)["id"])


def test_a_purchase_survives_revert_and_undo(site: DemoSite) -> None:
    before = site.running()
    site.deploy()
    bought = buy(site)

    refused = site.play("rollback_complete.yml")
    refused.must_say("Nothing was rolled back", "1 rows would be lost", "rollback_reapply=apply")

    reverted = site.play("rollback_complete.yml", rollback_reapply="apply")
    assert reverted.status == 0, reverted.output
    assert "Lost rows: 0. 1 row was carried over from the former database, not carried: none." in reverted.text
    assert (site.running(), site.applied()) == (before, (FIRST,))
    assert ask(site, "GET", "/api/purchases/" + bought)["totalTokens"] == 12.5

    again = site.play("rollback_complete.yml", rollback_reapply="apply")
    assert (again.status, again.changed) == (0, 0), again.output

    later = buy(site)
    undone = site.play("undo_rollback.yml", rollback_reapply="apply")
    assert undone.status == 0, undone.output
    assert site.applied() == (FIRST, MIGRATION)
    for purchase in (bought, later):
        assert ask(site, "GET", "/api/purchases/" + purchase)["totalTokens"] == 12.5
    assert site.databases("backstop_scratch_") == []
    again = site.play("undo_rollback.yml", rollback_reapply="apply")
    assert (again.status, again.changed) == (0, 0), again.output


def test_in_place_where_no_second_database_may_be_made(site: DemoSite) -> None:
    """The role may not create databases: revert and undo work inside the live one."""
    before = site.condition()
    site.deploy()
    now = site.condition()
    refused = site.play("rollback_complete.yml", rollback_restore_method="in_place", rollback_reapply="apply")
    refused.must_say("needs rollback_restore_method=swap", "Nothing was changed")
    site.sql("ALTER ROLE %s NOCREATEDB" % application.ROLE)
    try:
        reverted = site.play("rollback_complete.yml", rollback_restore_method="in_place")
        assert reverted.status == 0, reverted.output
        assert "What was removed is kept in backup" in reverted.text
        after = site.condition()
        assert (after.applied, after.running, after.live_oid) == (before.applied, before.running, now.live_oid)
        assert site.contents() == before.contents
        again = site.play("rollback_complete.yml", rollback_restore_method="in_place")
        assert (again.status, again.changed) == (0, 0), again.output
        undone = site.play("undo_rollback.yml")
        assert undone.status == 0, undone.output
        again = site.play("undo_rollback.yml")
        assert (again.status, again.changed) == (0, 0), again.output
    finally:
        site.sql("ALTER ROLE %s CREATEDB" % application.ROLE)
    last = site.condition()
    assert (last.applied, last.running, last.databases) == (now.applied, now.running, now.databases)
    assert last.contents == now.contents
