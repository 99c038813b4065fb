# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules for single tables, through Ansible: table backups, a restore, its result in check mode, its undo."""

from __future__ import annotations

import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, digests
from support.databases import OWNER
from support.module_runner import run_module


@pytest.fixture
def module(plain, tmp_path):
    given = {
        "connection": {"url": plain.cluster.url(plain.name, user=OWNER)},
        "store": plain.store.root,
        "client_bin_dir": str(plain.cluster.bin_dir),
    }

    def run(name, check=False, **arguments):
        return run_module(tmp_path, name, {**given, **arguments}, check=check)

    return run


def digest(live):
    with live.site.connect() as session:
        table = catalog.find_table(session, "User")
        return digests.table_digest(session, table.source, table.columns)


def test_backup_restore_and_undo(plain, module, tmp_path):
    refused = module("pg_dump", tables=["user"], check=True)
    assert refused.failed and "perhaps User" in refused.result["msg"]
    made = module("pg_dump", tables=['public."User"'], kind="daily").result
    assert (made["scope"], made["tables"], made["rows"]) == ("tables", 1, 20)
    (listed,) = run_module(tmp_path, "pg_backup_info", {"store": plain.store.root}).result["backups"]
    assert (listed["scope"], listed["tables"]) == ("tables", ["public.User"])
    right = digest(plain)
    plain.execute("UPDATE \"User\" SET \"name\" = 'wrong' WHERE \"id\" IN ('u1', 'u2')")
    wrong, files = digest(plain), sorted(os.walk(plain.store.root))

    asked = {"scenario": "corrupted_table", "table": "User"}
    checked = module("rollback_plan_info", **asked)
    assert checked.result["needed"] and checked.result["differences"][0]["changed"] == 2, checked.printed
    assert digest(plain) == wrong and sorted(os.walk(plain.store.root)) == files
    repair = plain.begun("rollback", {**asked, "mode": "repair", "keys": ["u1"]}, dead=True).operation
    repaired = module("rollback", operation=repair.id)
    assert repaired.result["changed"] and repaired.result["total"] == 1, repaired.printed
    repair.close("done")
    operation = plain.begun("rollback", asked, dead=True).operation
    restored = module("rollback", operation=operation.id)
    assert restored.result["changed"] and restored.result["backup"] == made["backup"], restored.printed
    assert digest(plain) == right
    operation.close("done")
    again = module("rollback_plan_info", **asked)
    assert not again.result["needed"] and again.result["done_before"] == operation.id, again.printed

    plain.execute('INSERT INTO "User" ("id", "email") VALUES (\'new\', \'new\')')
    right, files = digest(plain), sorted(os.walk(plain.store.root))
    refused = module("rollback_plan_info", scenario="undo", undo=operation.id)
    assert refused.failed and "would be lost" in refused.result["msg"], refused.printed
    assert digest(plain) == right and sorted(os.walk(plain.store.root)) == files
    would = module("rollback_plan_info", scenario="undo", undo=operation.id, accept_lost_rows=1)
    assert would.result["needed"] and (would.result["total"], would.result["lost_rows"]) == (2, 1), would.printed
    plain.execute('DELETE FROM "User" WHERE "id" = \'new\'')
    planned = module("rollback_plan_info", scenario="undo").result
    assert (planned["undoes"], planned["table"]) == (operation.id, "public.User")
    undo = plain.begun(planned["kind"], planned["request"], dead=True).operation
    undone = module("rollback", operation=undo.id)
    assert undone.result["changed"] and undone.result["total"] == 1, undone.printed
    assert plain.value('SELECT count(*) FROM "User" WHERE "name" = \'wrong\'') == 1
