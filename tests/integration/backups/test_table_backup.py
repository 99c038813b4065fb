# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of single tables: they contain these tables and nothing else, and are never used as a full one."""

from __future__ import annotations

import shutil

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill, verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import leftovers
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import archive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import backup_to_revert_to
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import plan_revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor
from support.databases import REALISTIC


def entries(live, place):
    """Kinds and names in the archive, without the owners."""
    with live.site.administer() as admin:
        tools = live.site.tools(admin)
    lines = archive.contents(tools, place.file("archive.dump"))
    return [entry.line.split(" ", 3)[3].rsplit(" ", 1)[0] for entry in lines]


@pytest.mark.parametrize("name", ["ReceiptData", "public.ReceiptData", '"ReceiptData"', 'public."ReceiptData"'])
def test_every_spelling_means_the_table(plain, name):
    plain.run("receipts.sql")
    plain.execute("INSERT INTO \"ReceiptData\" VALUES ('r1', 'p000001', NULL, 1, now())")
    place = plain.backup(tables=[name])
    manifest = manifests.load(place)
    assert manifest.scope == "tables" and manifests.level_of(place) == "readable"
    assert [(entry.full_name, entry.digest.rows) for entry in manifest.tables] == [("public.ReceiptData", 1)]
    found = entries(plain, place)
    assert [line for line in found if line.startswith("TABLE")] == [
        "TABLE public ReceiptData",
        "TABLE DATA public ReceiptData",
    ]
    assert "FK CONSTRAINT public ReceiptData ReceiptData_purchaseId_fkey" in found
    assert "index public.ReceiptData_purchaseId_key" in manifest.definitions
    assert not [key for key in manifest.definitions if "ReceiptData" not in key]


@pytest.mark.parametrize("name, near", [("receipt_data", "ReceiptData"), ("tokenpurchase", "TokenPurchase")])
def test_an_unknown_name(plain, name, near):
    plain.run("receipts.sql")
    with pytest.raises(Refused, match="There is no table %s" % name) as caught:
        plain.backup(tables=["User", name])
    assert near in caught.value.expected
    with pytest.raises(Refused, match="No table is named"):
        plain.backup(tables=[])
    assert plain.store.backups() == []


def test_a_serial_brings_its_sequence_and_names_count_once(plain):
    manifest = manifests.load(plain.backup(tables=["TokenPurchase", "public.TokenPurchase", "User"]))
    assert [entry.name for entry in manifest.tables] == ["TokenPurchase", "User"]
    assert manifest.sequences == {"public.TokenPurchase_number_seq": 500}


ODD = [
    ('"odd schema.with ""dot"""."table.of ""quotes"" 电"', ['table.of "quotes" 电']),
    (
        "a23456789012345678901234567890123456789012345678901234567890123",
        ["a23456789012345678901234567890123456789012345678901234567890123"],
    ),
    ("measured", ["measured_2024", "measured_rest"]),
    ("measured_2024", ["measured_2024"]),
    ("parent", ["parent"]),
    ("nothing", ["nothing"]),
    ("fast", ["fast"]),
]


@pytest.mark.fault("input", "backup of tables with such names", by="quoted")
def test_odd_tables(databases):
    live = databases.make("shop", REALISTIC, user=None)
    for name, tables in ODD:
        manifest = manifests.load(live.backup(tables=[name]))
        assert [entry.name for entry in manifest.tables] == tables
    everything = live.backup(tables=[name for name, _tables in ODD])
    verify(live.site, everything, "readable")
    assert sum(line.startswith("TABLE DATA") for line in entries(live, everything)) == 7


def test_it_is_never_taken_for_a_full_one(plain):
    whole = plain.backup()
    part = plain.backup(tables=["User"])
    assert backup_to_revert_to(plain.site, None) == whole
    rollback = plain.begun("rollback")

    def leftovers_of():
        with plain.site.connect() as session:
            leftovers(plain.site, session, part)

    ways = [
        lambda: verify(plain.site, part, "restored"),
        lambda: run_drill(plain.site, part),
        lambda: fence(plain.site, part, 1),
        lambda: build_successor(rollback, part),
        lambda: plan_revert(plain.site, part.backup_id),
        leftovers_of,
    ]
    for way in ways:
        with pytest.raises(Refused, match="holds only single tables") as caught:
            way()
        assert "public.User" in caught.value.found
    assert manifests.level_of(part) == "readable" and plain.names() == [plain.name]
    shutil.rmtree(whole.path)
    with pytest.raises(Refused, match="There is no backup to revert to"):
        backup_to_revert_to(plain.site, None)
