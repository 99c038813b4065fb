# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table restore restores no rows of other tables: every table that lacks some is named, with the command."""

from __future__ import annotations

import json
import shlex

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import lacking_children
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    plan,
    restore_table,
)

TABLES = """
CREATE TABLE shop (region text, id integer, name text, PRIMARY KEY (region, id));
CREATE TABLE "Order" (id integer PRIMARY KEY, region text, shop integer, note text,
  FOREIGN KEY (region, shop) REFERENCES shop ON DELETE CASCADE);
CREATE TABLE line (id integer PRIMARY KEY, "order" integer NOT NULL REFERENCES "Order" ON DELETE CASCADE, gift integer);
CREATE TABLE visit (id integer PRIMARY KEY, region text, shop integer,
  FOREIGN KEY (region, shop) REFERENCES shop ON DELETE SET NULL);
CREATE TABLE loose ("order" integer REFERENCES "Order" ON DELETE CASCADE, v text);
CREATE TABLE person (id integer PRIMARY KEY, boss integer REFERENCES person ON DELETE SET NULL);
CREATE TABLE untouched (id integer PRIMARY KEY, region text, shop integer, FOREIGN KEY (region, shop) REFERENCES shop);
INSERT INTO shop SELECT r, g, 'it''s' FROM generate_series(1, 5) g, unnest('{north,"so uth"}'::text[]) r;
INSERT INTO "Order" SELECT g, CASE WHEN g % 2 = 0 THEN 'north' ELSE 'so uth' END, 1 + g % 5
  FROM generate_series(1, 40) g;
INSERT INTO line SELECT g, 1 + g % 40 FROM generate_series(1, 120) g;
INSERT INTO visit SELECT g, 'north', 1 + g % 5 FROM generate_series(1, 20) g;
INSERT INTO loose SELECT 1 + g % 40, 'x' FROM generate_series(1, 80) g;
INSERT INTO person SELECT g, NULLIF(g / 2, 0) FROM generate_series(1, 10) g;
INSERT INTO untouched VALUES (1, 'so uth', 5);
"""
NAMES = ("shop", '"Order"', "line", "visit", "loose", "person", "untouched")


def contents(live):
    return {name: live.rows("SELECT t::text FROM %s t ORDER BY 1" % name) for name in NAMES}


def options_of(command):
    """The options of a command, as Ansible parses them."""
    words = shlex.split(command)
    assert words[:2] == ["ansible-playbook", "backstop.postgres.rollback_corrupted_table"]
    options = {}
    for one in words[2:]:
        if one != "-e":
            options.update(json.loads(one) if one.startswith("{") else [one.split("=", 1)])
    return options


def follow(live, told):
    """Run the suggested commands, in their order."""
    for entry in told:
        options = options_of(entry["command"])
        wanted = TableRestoreRequest(options["rollback_table"], options["rollback_mode"], options["rollback_where"])
        restore_table(live.begun("rollback"), wanted, options["rollback_backup"])
        for operation in live.store.operation_ids():
            _close(live, operation)


def _close(live, operation_id):
    operation = Operation.load(live.store, operation_id)
    if operation.is_open:
        operation.close("done")


@pytest.fixture
def site(plain):
    plain.as_owner(TABLES)
    place = plain.backup()
    verify(plain.site, place, "readable")
    return plain, place


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("mode", ["replace", "repair"])
def test_children_and_grandchildren_are_named_and_brought_back(site, mode, many, monkeypatch):
    live, place = site
    before = contents(live)
    if many:
        monkeypatch.setattr(lacking_children, "_MOST_VALUES", 1)
    live.as_owner("DELETE FROM shop WHERE region = 'north' AND id IN (2, 3) OR region = 'so uth' AND id = 2")
    # An order is deleted whose shop still exists: this is not part of the restore.
    live.as_owner('DELETE FROM line WHERE "order" = (SELECT min(id) FROM "Order")')
    gone = {name: len(before[name]) - len(rows) for name, rows in contents(live).items()}
    wanted = TableRestoreRequest("shop", mode, "region IN ('north', 'so uth')" if mode == "repair" else None)
    told = plan(live.site, wanted, place.backup_id).lacking
    result = restore_table(live.begun("rollback"), wanted, place.backup_id)
    for operation in live.store.operation_ids():
        _close(live, operation)
    assert result.lacking == told and contents(live)["shop"] == before["shop"]
    found = {entry["table"]: (entry["missing"], entry["emptied"]) for entry in told}
    assert found == {
        "public.Order": (gone['"Order"'], 0),
        "public.visit": (0, 8),
        "public.loose": (gone["loose"], 0),
        "public.line": (gone["line"] - 3, 0),
    }
    assert [entry["table"] for entry in told].index("public.Order") < [entry["table"] for entry in told].index(
        "public.line"
    )
    follow(live, told)
    after = contents(live)
    if many:
        # More values than a command can contain: then all rows of the backup whose parents exist.
        assert after == before
    else:
        assert len(after["line"]) == len(before["line"]) - 3
        assert {name: rows for name, rows in after.items() if name != "line"} == {
            name: rows for name, rows in before.items() if name != "line"
        }


def test_a_table_that_refers_to_itself(site):
    live, place = site
    before = contents(live)["person"]
    live.as_owner("DELETE FROM person WHERE id = 2")
    told = plan(live.site, TableRestoreRequest("person", "repair", "id = 2"), place.backup_id).lacking
    assert [(entry["table"], entry["missing"], entry["emptied"]) for entry in told] == [("public.person", 0, 2)]
    restore_table(live.begun("rollback"), TableRestoreRequest("person", "repair", "id = 2"), place.backup_id)
    for operation in live.store.operation_ids():
        _close(live, operation)
    follow(live, told)
    assert contents(live)["person"] == before


def test_nothing_is_said_where_nothing_came_back(site):
    live, place = site
    live.as_owner("UPDATE shop SET name = 'changed'; DELETE FROM line WHERE id = 3")
    assert plan(live.site, TableRestoreRequest("shop"), place.backup_id).lacking == []
